"""Queries, one module per noun. What they mean is decided by the services above."""
