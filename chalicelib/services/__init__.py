"""Use cases: the order of effects."""
