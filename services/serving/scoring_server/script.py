"""A scoring script: read once, `init()` called once, `run(data)` one call at a time, as scripts of Azure's expect it."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any


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

    def run(self, data: str) -> bytes:
        """What `run` gives, as JSON; a text is JSON's text, as Azure has it. Raises RunFailed."""
        with self._one_at_a_time:
            try:
                answer = self._functions["run"](data)
            except BaseException as error:
                sys.stderr.write(self._own(error))
                raise RunFailed(f"run() of {self._name} raised {told(error)}", is_the_answers_fault=False) from error
            try:
                return json.dumps(answer, default=_plain).encode()
            except (TypeError, ValueError, RecursionError) as error:
                what = f"run() of {self._name} gave what JSON has no form for: {error}"
                raise RunFailed(what, is_the_answers_fault=True) from error

    def _failed(self, what: str, error: BaseException) -> ScriptFailed:
        return ScriptFailed(f"{self._name}: {what} {told(error)}", self._own(error))

    def _own(self, error: BaseException) -> str:
        """The traceback from the script's first line on: ours is no help to anybody."""
        return "".join(traceback.format_exception(type(error), error, self._from_script(error.__traceback__)))

    def _from_script(self, frame: TracebackType | None) -> TracebackType | None:
        while frame is not None and not frame.tb_frame.f_code.co_filename.startswith(f"{self._folder}/"):
            frame = frame.tb_next
        return frame


def told(error: BaseException) -> str:
    """Kind and words, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]


def _plain(value: Any) -> Any:
    """Arrays and scalars of any library, as JSON has them."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{type(value).__name__} is no JSON type")
    return value.tolist()
