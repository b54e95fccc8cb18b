"""Progress for people: a spinner on a terminal, plain lines elsewhere. Standard library only until rich is installed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGN_OF_LIFE_SECONDS = 15.0


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def step(title: str, hint: str = "") -> Iterator[None]:
    """Says that something begins, now and then that it goes on, and how long it took."""
    begun = time.monotonic()
    shown = f"{title} ({hint})" if hint else title
    with _spinner(shown) if sys.stdout.isatty() else _lines(title, shown):
        yield
    say(f"  {title}: {time.monotonic() - begun:.1f} s")


@contextmanager
def _spinner(shown: str) -> Iterator[None]:
    try:
        from rich.console import Console
    except ImportError:
        with _lines(shown, shown):
            yield
        return
    with Console().status(shown):
        yield


@contextmanager
def _lines(title: str, shown: str) -> Iterator[None]:
    say(f"> {shown}")
    done, begun = threading.Event(), time.monotonic()

    def sign_of_life() -> None:
        while not done.wait(SIGN_OF_LIFE_SECONDS):
            say(f"  ... {title}, {time.monotonic() - begun:.0f} s")

    threading.Thread(target=sign_of_life, daemon=True).start()
    try:
        yield
    finally:
        done.set()
