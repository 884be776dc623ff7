"""Operations that are known: what graphql-core finds out for each request is found out once.

A plan has, for each type that a selection can be of, its fields with their resolvers, and for each field how
its value is completed. It does what graphql-core's executor does, in the same order and with the same errors,
and leaves to it whatever is rare: subscriptions, introspection, directives, and values that may be wrong.
"""

from schema.plans.plan import Outcome, Plan

__all__ = ["Outcome", "Plan"]
