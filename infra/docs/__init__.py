"""The documentation site, built from what stands in the repository."""
