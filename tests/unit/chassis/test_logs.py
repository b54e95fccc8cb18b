"""Log lines: ids in every line of a handler, and no thousand repeats of a library's complaint."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from services.chassis.logs import _Sparse, about, ids


def a_line(text: str, at: float, name: str = "aiokafka", *values: object) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, "file", 1, text, values, None)
    record.created = at
    return record


def test_the_same_text_is_told_once_in_ten_seconds() -> None:
    sparse = _Sparse()

    told = [sparse.filter(a_line("no broker", second)) for second in (100, 101, 109.9, 110, 111, 120)]

    assert told == [True, False, False, True, False, True]


def test_other_texts_and_other_libraries_are_told_beside_it() -> None:
    sparse = _Sparse()

    told = [sparse.filter(line) for line in (a_line("no broker", 100), a_line("no leader", 100), a_line("no broker", 100, name="kafka"))]

    assert told == [True, True, True]


def test_a_text_is_the_same_whatever_values_it_is_filled_with() -> None:
    sparse = _Sparse()

    told = [sparse.filter(a_line("node %s is away", 100, "aiokafka", number)) for number in range(3)]

    assert told == [True, False, False]


def test_texts_that_are_never_the_same_do_not_fill_the_memory() -> None:
    sparse = _Sparse()

    for number in range(5000):
        sparse.filter(a_line(f"text {number}", 100))

    assert len(sparse._last) <= 1001


def test_every_line_within_carries_the_ids_and_none_after() -> None:
    with about(run="r1"):
        with about(model="m"):
            both = ids()
        within = ids()

    assert both == {"run": "r1", "model": "m"}
    assert within == {"run": "r1"}
    assert ids() == {}


@pytest.mark.parametrize(("as_json", "shown"), [("True", '"run": "r1"'), ("False", "run=r1")])
def test_lines_of_ours_and_of_libraries_go_to_standard_error_in_one_form(as_json: str, shown: str) -> None:
    program = f"""
import logging, structlog
from services.chassis import logs
logs.set_up("registry", as_json={as_json})
with logs.about(run="r1"):
    structlog.get_logger().info("took it")
    structlog.get_logger().debug("not told")
    logging.getLogger("kafka").warning("broker %s is away", 1)
    logging.getLogger("kafka").info("not told")
"""

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    ours, library = result.stderr.splitlines()
    assert "took it" in ours and shown in ours and "registry" in ours
    assert "broker 1 is away" in library and shown in library
    assert result.stdout == ""
