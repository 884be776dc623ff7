class UnplannedError(Exception):
    """A plan does not cover this: graphql-core does it, and says what is wrong if anything is."""
