"""What is no metric is told and left out, wherever it was logged; the limits are those that the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.scheduler.domain import labels
from trainyard import _metric_limits as limits
from trainyard._metric_sender import _batches
from trainyard._points import as_point

REPO = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("kind", ["row", "table"])
def test_rows_and_tables_have_so_many_columns_and_no_more(kind: str) -> None:
    most = {f"c{number}": 1 for number in range(limits.COLUMNS)}

    assert as_point({"name": "n", "kind": kind, "value": most, "at": 0.0}).json
    with pytest.raises(ValueError, match=f"{limits.COLUMNS + 1} columns, and {limits.COLUMNS} are the most"):
        as_point({"name": "n", "kind": kind, "value": {**most, "one more": 1}, "at": 0.0})


def test_a_columns_name_is_no_longer_than_a_metrics() -> None:
    with pytest.raises(ValueError, match="whose name has more than 256 characters"):
        as_point({"name": "n", "kind": "row", "value": {"x" * (limits.NAME_CHARACTERS + 1): 1}, "at": 0.0})


def test_a_client_sends_points_of_so_many_names_a_run_and_tells_of_those_beyond(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainyard._metric_sender.NAMES", 2)
    known: dict[str, set[str]] = {}

    def names(*logged: tuple[str, str]) -> list[tuple[str, str]]:
        events: list[Any] = list(_batches([(run, 1, (name, "scalar", 1.0, 0.0, None, "")) for run, name in logged], known))
        return [(event.key, point.name) for event in events for point in event.message.points]

    first = names(("a", "x"), ("a", "y"))
    later = names(("a", "z"), ("a", "x"), ("b", "z"))

    assert (first, later) == ([("a", "x"), ("a", "y")], [("a", "x"), ("b", "z")])
    assert "'z' is one name too many: 2 are kept" in capsys.readouterr().err


def test_the_page_on_metrics_tells_the_limits_that_hold() -> None:
    page = (REPO / "docs/metrics.md").read_text("utf-8")

    rows = {row.split("|")[1].strip(): row.split("|")[3] for row in page.splitlines() if row.startswith("| ")}
    told = {
        "names of metrics, a run": limits.NAMES,
        "characters of a name": limits.NAME_CHARACTERS,
        "columns of a row or table": limits.COLUMNS,
        "rows sent at a time": limits.BATCH_BYTES,
        "one list, row or table": limits.POINT_BYTES,
        "a value that is a text, a description": limits.TEXT_CHARACTERS,
        "tags, properties": labels.LABELS,
    }
    assert {name: f"{number:,}" in rows[name] for name, number in told.items()} == dict.fromkeys(told, True)
