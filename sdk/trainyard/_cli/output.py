"""What the command prints: JSON and nothing else with --json; a table on a terminal, tab-separated lines in a pipe; errors on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from trainyard._errors import TrainyardException
from trainyard._text import json_safe, plain, plain_lines
from trainyard._times import as_utc


def say(text: object = "") -> None:
    """One line on standard output; unsafe characters are escaped."""
    sys.stdout.write(f"{plain(text)}\n")
    sys.stdout.flush()


def note(text: object) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{plain(text)}\n")
    sys.stderr.flush()


def emit(value: Any) -> None:
    """One JSON value on a line of its own."""
    try:
        dumped = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_other)
    except ValueError:
        dumped = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=_other)
    sys.stdout.write(f"{json_safe(dumped)}\n")
    sys.stdout.flush()


def fail(error: TrainyardException) -> None:
    """Code, message, hint and last lines of an error, on standard error."""
    sys.stderr.write(f"{plain_lines(f'{error.code}: {error.message}')}\n")
    if error.hint:
        note(f"  what to do: {error.hint}")
    for line in error.last_lines:
        note(f"  | {line}")


def rows(items: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Objects: each whole as JSON, or the named columns of each. A header stands on a terminal alone."""
    if as_json:
        for item in items:
            emit(item)
        return
    if sys.stdout.isatty():
        _table(list(items), columns)
        return
    for item in items:
        sys.stdout.write("\t".join(cell(item.get(column)).replace("\t", " ") for column in columns) + "\n")
    sys.stdout.flush()


def one(item: Mapping[str, Any], *, as_json: bool) -> None:
    """An object: as JSON, or a line a field; what is nested stands indented below its field."""
    if as_json:
        emit(item)
        return
    width = max((len(name) for name in item), default=0)
    for name, value in item.items():
        if isinstance(value, Mapping) and value:
            say(f"{name}")
            for key, inner in value.items():
                # Only of a text that the platform has laid out itself in lines, as the end of a log.
                first, *more = inner.split("\n") if isinstance(inner, str) else [inner]
                say(f"  {key}: {cell(first)}")
                for line in more:
                    say(f"    {cell(line)}")
        elif isinstance(value, list) and value and not all(isinstance(entry, str | int | float) for entry in value):
            say(f"{name}")
            for entry in value:
                say("  " + ("  ".join(cell(inner) for inner in entry.values()) if isinstance(entry, Mapping) else cell(entry)))
        else:
            say(f"{name:<{width}}  {cell(value)}")


def text(content: object) -> None:
    """Several lines; unsafe characters but the line ends are escaped."""
    sys.stdout.write(f"{plain_lines(content)}\n")
    sys.stdout.flush()


def cell(value: Any) -> str:
    """A value in a table or on a line."""
    if value is None or value == {} or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return plain(", ".join(f"{name}={inner}" if inner != "" else str(name) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return plain(", ".join(str(entry) for entry in value))
    return plain(value)


def iso(stamp: Any) -> str | None:
    """A protobuf Timestamp as ISO 8601 in UTC; None for one that is not set."""
    if not stamp.seconds and not stamp.nanos:
        return None
    when: datetime = as_utc(stamp)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size(number: int) -> str:
    """Bytes for people."""
    amount, unit = float(number), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, bigger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def _table(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for item in items:
        table.add_row(*(Text(cell(item.get(column)), overflow="fold") for column in columns))
    Console().print(table)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: their names, as protobuf's JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _other(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
