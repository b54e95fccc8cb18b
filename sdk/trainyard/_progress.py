"""Output for people: colour on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from typing import TextIO

from trainyard._text import shown_line

_STYLES = {"head": "bold", "phase": "cyan", "note": "yellow", "bad": "bold red", "good": "green", "dim": "dim"}


class Printer:
    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._console = None
        if self._stream.isatty():
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False, soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """One line, at once. The text is never read as markup, nor as orders to the terminal: it may be a script's output."""
        text = shown_line(text)
        if self._console is not None:
            self._console.print(text, style=_STYLES.get(style, ""), markup=False, emoji=False)
        else:
            print(text, file=self._stream, flush=True)
