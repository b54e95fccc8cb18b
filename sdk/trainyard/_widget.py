"""`RunDetails(run).show()`: a run in a notebook, live; as HTML where no widget works, as text elsewhere."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import Any

from trainyard._widget_data import Snapshot, gather
from trainyard._widget_html import as_html, as_text

# What comes within this time is drawn at once.
_SETTLE_SECONDS = 0.4
# Without a push from the platform, and as a net under it.
_LOOK_SECONDS = 5.0
_TOPICS = ("trainyard.jobs", "trainyard.metrics", "trainyard.logs")
_SCRIPT = """
function render({ model, el }) {
  const root = el.shadowRoot || el.attachShadow({ mode: "open" });
  const draw = () => {
    const before = root.querySelector("pre:last-of-type");
    const atEnd = !before || before.scrollTop + before.clientHeight >= before.scrollHeight - 8;
    const top = before ? before.scrollTop : 0;
    root.innerHTML = model.get("html");
    const after = root.querySelector("pre:last-of-type");
    if (after) after.scrollTop = atEnd ? after.scrollHeight : top;
  };
  root.addEventListener("change", (event) => {
    if (event.target.dataset.role !== "log") return;
    model.set("log", event.target.value);
    model.save_changes();
  });
  model.on("change:html", draw);
  draw();
  return () => model.off("change:html", draw);
}
export default { render };
"""


class RunDetails:
    """A run's status, phases, properties, metrics, children and a log's tail, kept up to date while it runs. Nothing here ever raises."""

    def __init__(self, run_instance: Any) -> None:
        self._run = run_instance
        self._log = ""
        self._lock = threading.Lock()
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._draws: list[Callable[[Snapshot], None]] = []

    def __repr__(self) -> str:
        return as_text(gather(self._run, self._log))

    def _repr_html_(self) -> str:
        return as_html(gather(self._run, self._log))

    def get_widget_data(self) -> dict[str, Any]:
        """What is shown, as plain values: status, facts, phases, tags, properties, metrics, logs, children, error."""
        found = gather(self._run, self._log)
        return {**vars(found), "metrics": {name: [value for _, value in points] for name, points in found.metrics.items()}}

    def show(self, render_lib: object = None, widget_settings: object = None) -> None:
        """In a notebook a live widget (needs the extra `widgets`), else HTML that is kept up to date; elsewhere text. Returns at once."""
        try:
            self._show()
        except Exception as error:  # noqa: BLE001 - a picture is no reason to stop a notebook
            sys.stdout.write(f"{as_text(gather(self._run))}\n  (no widget: {type(error).__name__}: {error})\n")

    def close(self) -> None:
        """Stops keeping it up to date."""
        self._stop.set()
        self._dirty.set()

    def _show(self) -> None:
        found = gather(self._run, self._log)
        if not _in_notebook():
            sys.stdout.write(as_text(found) + "\n")
            return
        display = importlib.import_module("IPython.display").display
        if find_spec("anywidget") is not None:
            widget = _widget_class()(html=as_html(found, choosing=True), log=found.log)
            widget.observe(lambda change: self._choose(change["new"]), "log")
            bundle = widget._repr_mimebundle_() or {}
            data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
            # What a front end without widgets shows instead.
            display({**data, "text/html": as_html(found), "text/plain": as_text(found)}, metadata=metadata, raw=True)
            self._widget = widget
            self._keep(found, lambda now: setattr(widget, "html", as_html(now, choosing=True)))
            return
        handle = display(_Drawn(found), display_id=True)
        self._keep(found, lambda now: handle.update(_Drawn(now)))

    def _choose(self, log: str) -> None:
        with self._lock:
            self._log = log
        self._dirty.set()
        if self._thread is None or not self._thread.is_alive():
            # The run has ended; its logs can be looked through still.
            self._redraw()

    def _keep(self, first: Snapshot, draw: Callable[[Snapshot], None]) -> None:
        with self._lock:
            self._draws.append(draw)
            if first.has_ended or (self._thread is not None and self._thread.is_alive()):
                return
            self._stop.clear()
            self._thread = threading.Thread(target=self._follow, name="trainyard-widget", daemon=True)
            self._thread.start()

    def _follow(self) -> None:
        pushing = threading.Thread(target=self._listen, name="trainyard-widget-push", daemon=True)
        pushing.start()
        while not self._stop.is_set():
            self._dirty.wait(_LOOK_SECONDS)
            self._stop.wait(_SETTLE_SECONDS)
            self._dirty.clear()
            if self._redraw().has_ended:
                break
        self._stop.set()

    def _redraw(self) -> Snapshot:
        found = gather(self._run, self._log)
        for draw in list(self._draws):
            try:
                draw(found)
            except Exception:  # noqa: BLE001 - the notebook's front end has gone; the others may be there
                self._draws.remove(draw)
        return found

    def _listen(self) -> None:
        """Marks the picture old whenever anything about the run lies in the log; a stream that breaks is taken up again."""
        while not self._stop.is_set():
            try:
                for _ in self._news():
                    self._dirty.set()
                    if self._stop.is_set():
                        return
            except Exception:  # noqa: BLE001 - the look from time to time goes on
                pass
            self._stop.wait(_LOOK_SECONDS)

    def _news(self) -> Iterator[Any]:
        from trainyard.history.v1 import history_pb2

        clients = self._run.experiment.workspace._clients
        request = history_pb2.SubscribeRequest(topics=_TOPICS, key=self._run.id, from_now=True, follow=True)
        yield from clients.events.Subscribe(request)


class _Drawn:
    """A snapshot as IPython shows it."""

    def __init__(self, found: Snapshot) -> None:
        self._found = found

    def __repr__(self) -> str:
        return as_text(self._found)

    def _repr_html_(self) -> str:
        return as_html(self._found)


def _in_notebook() -> bool:
    """Whether a kernel runs this, and not a terminal or a script."""
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell is not None else None
    return current is not None and getattr(current, "kernel", None) is not None


@cache
def _widget_class() -> Any:
    anywidget, traitlets = importlib.import_module("anywidget"), importlib.import_module("traitlets")
    fields = {"_esm": _SCRIPT, "html": traitlets.Unicode("").tag(sync=True), "log": traitlets.Unicode("").tag(sync=True)}
    return type("RunDetailsWidget", (anywidget.AnyWidget,), fields)
