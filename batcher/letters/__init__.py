"""Letters: what they say, how they look, and how they leave."""
