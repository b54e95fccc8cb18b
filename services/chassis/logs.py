"""Log lines for people: one verb, the ids. JSON where TRAINYARD_LOG_JSON says so."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog

_ids: ContextVar[dict[str, str]] = ContextVar("ids", default={})  # noqa: B039 - never changed, only replaced


def set_up(service: str, *, as_json: bool, level: int = logging.INFO) -> None:
    """structlog for our own lines, and the libraries' lines in the same form from WARNING up."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _with_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    handler.addFilter(_Sparse())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Sparse(logging.Filter):
    """A broker that is away makes the clients say the same thing hundreds of times a minute: each text once in 10 seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = f"{record.name}:{record.msg}"
        if record.created - self._last.get(key, 0.0) < 10.0:
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = record.created
        return True


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Every line within carries these ids, e.g. run=..., correlation=..."""
    # Not structlog's own: it keeps a variable for each id, and every record that is taken comes by here.
    before = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(before)


def ids() -> dict[str, str]:
    """What a line written now carries."""
    return _ids.get()


def _with_ids(_: Any, __: str, line: Any) -> Any:
    for name, text in _ids.get().items():
        line.setdefault(name, text)
    return line
