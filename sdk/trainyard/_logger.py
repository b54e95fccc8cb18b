"""The log* calls of a run, whoever takes what is logged. Nothing here ever fails a run: what cannot be logged is one line
on standard error. Standard library only."""

from __future__ import annotations

import functools
import io
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trainyard._values import plain, table, text, wrong_name

Point = tuple[str, str, Any, float, int | None, str]
"""name, kind, value, time in seconds, step, description"""
_T = TypeVar("_T", bound=Callable[..., None])
_now = time.time


def never_fails(method: _T) -> _T:
    @functools.wraps(method)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            method(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises
            complain(f"{method.__name__}({', '.join(_shown(item) for item in arguments[1:2])}) was not logged: {error}")

    return guarded  # type: ignore[return-value]


def _shown(item: Any) -> str:
    try:
        return repr(item)[:80]
    except Exception:  # noqa: BLE001
        return f"a {type(item).__name__}"


class Logger:
    """`_emit` takes a point at once and cheaply; `_attach` keeps a file under a path of the run."""

    id: str

    def __init__(self) -> None:
        self._kinds: dict[str, str] = {}

    def _emit(self, point: Point) -> None:
        raise NotImplementedError

    def _attach(self, path: str, content: bytes) -> None:
        raise NotImplementedError

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """One value. Numbers of any library stay numbers, anything else becomes its text; lists belong to log_list.

        step: an integer that says where in the training it was logged. Costs a few microseconds and never raises.
        """
        try:
            if type(value) is not float:
                if isinstance(value, list | tuple | range | set | dict) or hasattr(value, "__next__"):
                    complain(
                        f"log({name!r}) takes one value, not a {type(value).__name__}: use log_list, log_row or log_table. "
                        "It was not logged."
                    )
                    return
                value = plain(value)
            if self._kinds.get(name) == "scalar" or self._is_new("scalar", name):
                self._emit((name, "scalar", value, _now(), step if step is None else int(step), description))
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises
            complain(f"log({_shown(name)}) was not logged: {error}")

    @never_fails
    def log_list(self, name: str, value: Iterable[Any], description: str = "", step: int | None = None) -> None:
        """Several values under one name, in their order."""
        self._say(name, "list", [plain(item) for item in value], description, step)

    @never_fails
    def log_row(self, name: str, description: str | None = None, step: int | None = None, **columns: Any) -> None:
        """One row of named columns; rows under one name make a table."""
        self._say(name, "row", {column: plain(item) for column, item in columns.items()}, description, step)

    @never_fails
    def log_table(self, name: str, value: Mapping[str, Any], description: str = "", step: int | None = None) -> None:
        """Columns: name -> list of values, or one value."""
        self._say(name, "table", table(value), description, step)

    @never_fails
    def log_image(self, name: str, path: Any = None, plot: Any = None, description: str = "", step: int | None = None) -> None:
        """An image: the path of a file, or a plot that has savefig (matplotlib's pyplot or Figure). Kept among the run's files."""
        if (path is None) == (plot is None):
            raise ValueError("give either path= or plot=")
        if plot is not None:
            drawn = io.BytesIO()
            plot.savefig(drawn, format="png")
            self._file(name, "image", drawn.getvalue(), ".png", description, step)
        else:
            file = Path(path)
            self._file(name, "image", file.read_bytes(), file.suffix or ".png", description, step)

    def log_confusion_matrix(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """A dict (or its JSON text): schema_type "confusion_matrix", schema_version, data {class_labels, matrix}."""
        self._document(name, "confusion_matrix", value, description, step)

    def log_accuracy_table(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """A dict (or its JSON text): schema_type "accuracy_table", schema_version, data {probability_tables, ...}."""
        self._document(name, "accuracy_table", value, description, step)

    def log_residuals(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """A dict (or its JSON text): schema_type "residuals", schema_version, data {bin_edges, bin_counts, ...}."""
        self._document(name, "residuals", value, description, step)

    def log_predictions(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """A dict (or its JSON text): schema_type "predictions", schema_version, data {bin_averages, bin_errors, ...}."""
        self._document(name, "predictions", value, description, step)

    def _document(self, name: str, kind: str, value: Any, description: str, step: int | None) -> None:
        try:
            content = json.loads(value) if isinstance(value, str) else value
            if not isinstance(content, Mapping) or content.get("schema_type", kind) != kind or "data" not in content:
                raise ValueError(f"it takes a dict with schema_type {kind!r}, schema_version and data")
            self._file(name, kind, json.dumps(content, default=_number_or_text).encode(), ".json", description, step)
        except Exception as error:  # noqa: BLE001 - whatever a value's own code raises
            complain(f"log_{kind}({_shown(name)}) was not logged: {error}")

    def _file(self, name: str, kind: str, content: bytes, suffix: str, description: str, step: int | None) -> None:
        if wrong_name(name) or not self._may(kind, name):
            self._is_new(kind, name)
            return
        cleaned = "".join(char if char.isalnum() and char.isascii() or char in "-_" else "_" for char in name)[:100]
        path = f"{cleaned}_{int(_now())}_{secrets.token_hex(4)}{suffix}"
        self._attach(path, content)
        self._say(name, kind, f"aml://artifactId/ExperimentRun/dcid.{self.id}/{path}", description, step)

    def _say(self, name: str, kind: str, value: Any, description: str | None, step: int | None) -> None:
        if self._is_new(kind, name):
            self._emit((name, kind, value, _now(), step if step is None else int(step), text(str(description or ""))))

    def _may(self, kind: str, name: str) -> bool:
        return self._kinds.get(name, kind) == kind

    def _is_new(self, kind: str, name: str) -> bool:
        """Whether it may be logged under that name; remembers the kind, and says why not."""
        trouble = wrong_name(name)
        if trouble:
            complain(f"{trouble} It was not logged.")
            return False
        if not self._may(kind, name):
            complain(f"metric {name!r} is a {self._kinds[name]}; a {kind} of that name was not logged.")
            return False
        self._kinds[name] = kind
        return True


def _number_or_text(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else plain(value)


def complain(what: str) -> None:
    """One line on standard error, where there is one."""
    try:
        print(f"trainyard: {what}", file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        pass
