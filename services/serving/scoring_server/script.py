"""A scoring script: read once, `init()` called once, `run` one call at a time, as scripts of Azure's expect it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

# What @rawhttp leaves on a function: how to make what it takes. Its answer then has a method of the same name.
RAW = "_trainyard_raw_http"
_TOKEN, _VALUE = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"), re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# The connection is the server's affair.
_OURS = frozenset(("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding", "upgrade"))


@dataclass(frozen=True)
class Asked:
    """A call as it came. `target`: path and query; `body`: without its Content-Encoding."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Answered:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Content-Type is JSON where nothing else is said."""


class NotText(Exception):
    """The script takes text, and the body is none."""


class ScriptFailed(Exception):
    """It cannot be served. `traceback` is the script's own part of it, "" where there is none."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class RunFailed(Exception):
    """`run` raised, or gave what JSON has no form for."""

    def __init__(self, message: str, *, is_the_answers_fault: bool) -> None:
        super().__init__(message)
        self.is_the_answers_fault = is_the_answers_fault


class Script:
    def __init__(self, folder: Path, entry_script: str) -> None:
        """Reads it. Raises ScriptFailed."""
        path = folder / entry_script
        self._name = entry_script
        self._folder = folder
        self._one_at_a_time = threading.Lock()
        for place in dict.fromkeys((str(folder), str(path.parent))):
            sys.path.insert(0, place)
        spec = importlib.util.spec_from_file_location("entry_module", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ScriptFailed(f"{entry_script} is not in the source folder")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # what it pickles is found again by this name
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            raise self._failed("cannot be imported:", error) from error
        self._functions = {}
        for name, form in (("init", "init()"), ("run", "run(raw_data)")):
            function = getattr(module, name, None)
            if not callable(function):
                raise ScriptFailed(f"{entry_script} has no function {form}")
            self._functions[name] = function

    def init(self) -> None:
        """Raises ScriptFailed with the traceback."""
        try:
            self._functions["init"]()
        except BaseException as error:
            raise self._failed("init() raised", error) from error

    def run(self, asked: Asked) -> Answered:
        """What `run` gives, as JSON; a text is JSON's text, as Azure has it. Of a GET it gets what the query says, as JSON. With @rawhttp
        it gets the request, and may give an answer of its own. Raises RunFailed, and NotText."""
        run = self._functions["run"]
        make: Callable[..., Any] | None = getattr(run, RAW, None)
        given = _as_text(asked) if make is None else None
        with self._one_at_a_time:
            try:
                if make is not None:
                    given = make(asked.method, asked.target, dict(asked.headers), asked.body)
                answer = run(given)
                raw = getattr(answer, RAW, None)
                own = raw() if callable(raw) else None
            except BaseException as error:
                sys.stderr.write(self._own(error))
                raise RunFailed(f"run() of {self._name} raised {told(error)}", is_the_answers_fault=False) from error
            try:
                return Answered(200, json.dumps(answer, default=_plain).encode()) if own is None else _checked(*own)
            except (TypeError, ValueError, RecursionError) as error:
                what = "what JSON has no form for" if own is None else "what is no HTTP answer"
                raise RunFailed(f"run() of {self._name} gave {what}: {error}", is_the_answers_fault=True) from error

    def _failed(self, what: str, error: BaseException) -> ScriptFailed:
        return ScriptFailed(f"{self._name}: {what} {told(error)}", self._own(error))

    def _own(self, error: BaseException) -> str:
        """The traceback from the script's first line on: ours is no help to anybody."""
        return "".join(traceback.format_exception(type(error), error, self._from_script(error.__traceback__)))

    def _from_script(self, frame: TracebackType | None) -> TracebackType | None:
        while frame is not None and not frame.tb_frame.f_code.co_filename.startswith(f"{self._folder}/"):
            frame = frame.tb_next
        return frame


def _as_text(asked: Asked) -> str:
    """Raises NotText."""
    if asked.method == "GET":
        try:
            found = parse_qs(asked.target.partition("?")[2], keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise NotText(f"the query cannot be read: {error}") from error
        values = {name: [_parsed(value) for value in values] for name, values in found.items()}
        return json.dumps({name: several if len(several) > 1 else several[0] for name, several in values.items()})
    try:
        return asked.body.decode()
    except UnicodeDecodeError as error:
        raise NotText("the body is no UTF-8 text") from error


def _parsed(text: str) -> Any:
    """A value of a query: JSON where it is some, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _checked(status: int, headers: Mapping[str, str], body: bytes) -> Answered:
    """Raises ValueError for what would break the connection."""
    if type(status) is not int or not 200 <= status <= 599:
        raise ValueError(f"{status!r} is no status from 200 to 599")
    for name, value in headers.items():
        if not (_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise ValueError(f"{name[:100]!r}: {value[:100]!r} is no header")
    return Answered(status, body, {name: value for name, value in headers.items() if name.lower() not in _OURS})


def told(error: BaseException) -> str:
    """Kind and words, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _plain(value: Any) -> Any:
    """Arrays and scalars of any library, as JSON has them."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is no JSON type")
    return value.tolist()
