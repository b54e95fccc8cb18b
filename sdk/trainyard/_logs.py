"""A run's logs as a client gets at them: archived files by URL, live ones by their last lines."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._history import files_of, log_lines
from trainyard._paths import below

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

URL_SECONDS = 3600
_LAST_LINES = 1000
# A thousand lines come at once, a log of gigabytes does not; neither is waited for without end.
_LIVE_SECONDS, _WHOLE_SECONDS = 15.0, 600.0
_PREFIXES = ("azureml-logs/", "logs/")


def urls(workspace: Workspace, view: Any, as_of: Any = None) -> dict[str, str]:
    """Name -> URL; `as_of`: of that moment, which the view is of. Of a log that is written still and lies in no file yet: a data: URL of its last thousand lines."""
    files = _files(workspace, view)
    found = {name: workspace._objects.signed_url(file.object_key, URL_SECONDS) for name, file in files.items()}
    for info in _live(view, files):
        text = _text(workspace, view.run.run_id, info, max(0, info.lines - _LAST_LINES), _LIVE_SECONDS, as_of)
        found[info.log] = f"data:text/plain;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
    return dict(sorted(found.items()))


def texts(workspace: Workspace, view: Any, as_of: Any = None) -> dict[str, str]:
    """Name -> all of its text up to now, or to the moment that the view is of."""
    found = {
        name: workspace._objects.get_bytes(file.object_key).decode("utf-8", "replace") for name, file in _files(workspace, view).items()
    }
    for info in _live(view, found):
        found[info.log] = _text(workspace, view.run.run_id, info, 0, _WHOLE_SECONDS, as_of)
    return dict(sorted(found.items()))


def save(workspace: Workspace, view: Any, folder: Path) -> list[str]:
    """Each log below the folder, under its name; the paths, sorted."""
    from trainyard._details import fetch_all

    files = _files(workspace, view)
    places = {name: below(folder, name) for name in (*files, *(info.log for info in _live(view, files)))}
    fetch_all(workspace._objects, [(file, places[name]) for name, file in files.items()])
    for info in _live(view, files):
        places[info.log].parent.mkdir(parents=True, exist_ok=True)
        places[info.log].write_text(_text(workspace, view.run.run_id, info, 0, _WHOLE_SECONDS), "utf-8", "replace")
    return sorted(str(place) for place in places.values())


def _live(view: Any, files: Container[str]) -> Iterator[Any]:
    """Logs that lie in no file yet. A name that several ranks write to, as that of a build, is the lowest one's, as in the archive."""
    given: set[str] = set()
    for info in sorted(view.logs, key=lambda it: (it.log, it.rank)):
        if info.log not in files and info.log not in given:
            given.add(info.log)
            yield info


def _files(workspace: Workspace, view: Any) -> dict[str, Any]:
    return {file.path: file for file in files_of(workspace, view) if file.path.startswith(_PREFIXES)}


def _text(workspace: Workspace, run_id: str, info: Any, first_line: int, seconds: float, as_of: Any = None) -> str:
    lines = log_lines(workspace, run_id, info.log, rank=info.rank, first_line=first_line, seconds=seconds, as_of=as_of)
    return "".join(f"{text}\n" for _, text in lines)
