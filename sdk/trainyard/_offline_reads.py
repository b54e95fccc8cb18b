"""What a run without a platform can say of itself: the reads of a submitted run, out of its folder. Standard library only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _values
from trainyard._download_places import place_of, places_below
from trainyard._errors import UserErrorException
from trainyard._live import LiveRun
from trainyard._paths import below

if TYPE_CHECKING:
    from trainyard._offline import OfflineRun


class OfflineReads(LiveRun):
    """OfflineRun, which keeps what is read here, says how."""

    id: str
    type: str
    folder: Path
    why = ""
    position: int | None = None

    def _kept(self, what: str) -> Iterator[Any]:
        raise NotImplementedError

    def _child(self, run_id: str) -> OfflineRun:
        raise NotImplementedError

    # -- what it is

    @property
    def display_name(self) -> str:
        """As given when it was made; its id where none was."""
        return next((str(it["display_name"]) for it in self._kept("opened") if it["display_name"]), self.id)

    @property
    def status(self) -> str:
        """As `get_status()`."""
        return self.get_status()

    def get_status(self) -> str:
        """Running until complete, fail or cancel."""
        ends = [end["status"] for end in self._kept("end")]
        return str(ends[0]) if ends else "Running"

    def get_detailed_status(self) -> dict[str, Any]:
        """{'status', 'details', 'position'}; it waits for nothing."""
        return {"status": self.get_status(), "details": self.why, "position": self.position}

    def get_details(self) -> dict[str, Any]:
        """runId, target, status, tags, properties, error."""
        tags, properties = self._labels()
        errors = [end["error"] for end in self._kept("end") if "error" in end]
        found = {"runId": self.id, "target": "local", "status": self.get_status(), "tags": tags, "properties": properties}
        return found | ({"error": {"error": errors[0]}} if errors else {})

    def get_details_with_logs(self) -> dict[str, Any]:
        """get_details(): what it prints is in nobody's hands but yours."""
        return self.get_details() | {"logFiles": {}}

    def get_portal_url(self) -> str:
        """The folder that it is kept in."""
        return str(self.folder)

    # -- metrics and children

    def get_metrics(
        self, name: str | None = None, recursive: bool = False, run_type: str | None = None, *, rank: int | str | None = None
    ) -> dict[str, Any]:
        """In the same shapes as online; the one process there is has rank 0. recursive: {run id: {...}} of it and its descendants."""
        points = [(point[0], point[1], point[2]) for point in self._kept("metric") if rank in (None, 0, "all")]
        own: dict[Any, Any] = _values.shape(self.id, (point for point in points if name is None or point[0] == name))
        own = {0: own} if rank == "all" else own
        if not recursive:
            return own
        found = {self.id: own} if run_type in (None, self.type) else {}
        for child in self.get_children():
            found |= child.get_metrics(name, recursive=True, run_type=run_type, rank=rank)
        return found

    def get_children(
        self,
        recursive: bool = False,
        tags: object = None,
        properties: object = None,
        type: str | None = None,  # noqa: A002 - as in Azure
        status: str | None = None,
        _rehydrate_runs: bool = True,
    ) -> Iterator[OfflineRun]:
        """Child runs, newest first; with recursive each is followed by its own. Filters: a name, or a dict of names and values."""
        for run_id in reversed([str(it) for it in self._kept("child")]):
            child = self._child(run_id)
            own_tags, own_properties = child._labels()
            fits = _fits(own_tags, tags) and _fits(own_properties, properties)
            if fits and type in (None, child.type) and status in (None, child.get_status()):
                yield child
            if recursive:
                yield from child.get_children(True, tags, properties, type, status)

    # -- files

    def get_file_names(self) -> list[str]:
        """What was uploaded, sorted."""
        return sorted(set(self._kept("file")))

    def download_file(self, name: str, output_file_path: str | None = None) -> None:
        """A copy: into output_file_path (a file, or an existing folder), else under its last name here."""
        names = self.get_file_names()
        if name not in names:
            raise UserErrorException(f"Run {self.id} has no file {name!r}; its files are: {', '.join(names[:20]) or 'none'}.", target=name)
        self._copy(name, place_of(name, output_file_path))

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: list[str] | None = None,
        append_prefix: bool = True,
    ) -> None:
        """Copies of everything below prefix; append_prefix=False leaves the prefix out of the local paths."""
        for name, place in places_below(self.get_file_names(), prefix, output_directory, output_paths, append_prefix=append_prefix):
            self._copy(name, place)

    def _copy(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(below(self.folder / "files", name), target)

    def get_all_logs(self, destination: str | None = None) -> list[str]:
        """[]: what it prints goes where you sent it."""
        return []

    download_logs = get_all_logs

    # -- what only a platform can do

    def restore_snapshot(self, path: str | None = None) -> str:
        """No snapshot is taken without a platform: raises UserErrorException."""
        raise UserErrorException(
            f"Run {self.id} has no snapshot: it runs where its source lies.",
            target=path or "path",
            hint="submit the script; its source is kept then",
        )

    def register_model(self, model_name: str, *_: Any, **__: Any) -> None:
        """There is no registry without a platform: raises UserErrorException."""
        raise UserErrorException(
            f"An offline run cannot register {model_name!r}: there is no platform.",
            target=model_name,
            hint="submit the script, or call Model.register with the folder",
        )

    def wait_for_completion(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Nothing runs elsewhere: the details as they are."""
        return self.get_details()


def _fits(there: Mapping[str, str], wish: object) -> bool:
    """`wish`: None, a name, or a dict of names and values."""
    if isinstance(wish, Mapping):
        return all(there.get(str(name)) == str(value) for name, value in wish.items())
    return wish is None or str(wish) in there
