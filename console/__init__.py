"""The ``darkroom`` program: what customers and operators do from a terminal."""
