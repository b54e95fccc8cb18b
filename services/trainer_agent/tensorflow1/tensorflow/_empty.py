"""A package that only leads to others."""
