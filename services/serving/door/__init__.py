"""One address for all models by name, in a process of its own."""

PORT_TAKEN = 4
"""Its exit code then."""
