"""Rows of figures: medians beside the aim."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Row:
    """One figure: what, its unit, all samples, and the aim in words."""

    what: str
    unit: str
    samples: list[float] = field(default_factory=list)
    aim: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


def print_table(rows: Sequence[Row]) -> None:
    table = Table("figure", "median", "min", "max", "n", "unit", "aim")
    for row in rows:
        cells = [f"{value:.3f}" for value in (row.median, min(row.samples), max(row.samples))]
        table.add_row(row.what, *cells, str(len(row.samples)), row.unit, row.aim)
    Console(width=150).print(table)
