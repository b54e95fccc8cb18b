"""How much may be logged: the one place. docs/metrics.md tells it beside Azure's limits. Standard library only: scripts are told by it."""

from __future__ import annotations

NAMES = 20_000
"""Of an attempt, its children's included; a client counts those that it has logged itself, by run."""
NAME_CHARACTERS = 256
"""Of a metric and of a column."""
COLUMNS = 1_000
"""Of one row or table."""
TEXT_CHARACTERS = 3_000
"""Of a value that is a text, and of a description; what is longer is cut."""
POINT_BYTES = 500_000
"""Of one list, row or table, as JSON."""
BATCH_BYTES = 700_000
"""Of one event; more points make more events."""
