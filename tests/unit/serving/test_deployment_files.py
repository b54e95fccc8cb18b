"""What a deployment's server finds on its node: models linked, code copied, each byte as it was sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.serving.adapters.deployment_files import DeploymentFiles
from services.serving.adapters.model_files import CachedModelFiles
from services.serving.adapters.sources import CachedSources
from services.serving.ports import CannotServe, Content
from tests.unit.serving.builders import SAVED_MODEL, a_version, content, scoring
from trainyard import _snapshot
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects
from trainyard.endpoint.v1 import endpoint_pb2 as pb

FILES = {"score.py": b"import helper", "lib/helper.py": b"", "run.sh": b"#!/bin/sh"}


class Node:
    def __init__(self, folder: Path) -> None:
        self.objects = MemoryObjects()
        self.folder = folder
        self.files = self.new()
        for files in (SAVED_MODEL, {"words.txt": b"w"}):
            for path, content_ in files.items():
                self.objects.put_bytes(f"runs/r/1/outputs/{path}", content_)

    def new(self, objects: MemoryObjects | None = None) -> DeploymentFiles:
        store = objects or self.objects
        cache = self.folder / "cache"
        return DeploymentFiles(CachedModelFiles(store, cache), CachedSources(store, cache), self.folder / "home")

    def sent(self, script: str = "score.py") -> pb.Scoring:
        source = self.folder / "source"
        for path, text in FILES.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(text)
        (source / "run.sh").chmod(0o755)
        (source / "empty").mkdir(exist_ok=True)
        made = pb.Scoring(entry_script=script)
        made.source.snapshot.CopyFrom(_snapshot.take(source, self.objects, show_progress=False))
        return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def with_code(code: pb.Scoring, *versions: str, deployment: int = 1) -> Content:
    files = {"mnist": None, "words": {"words.txt": b"w"}}
    return Content("digits", deployment, "score.py", tuple(a_version(name, 2, files[name]) for name in versions), code)


async def test_without_code_the_saved_model_is_all(node: Node) -> None:
    found = await node.files.fetch(content(), print)

    assert (found.path / "saved_model.pb").read_bytes() == b"graph"
    assert found.model_dir is None


@pytest.mark.parametrize(
    ("files", "beside"),
    [
        ({"small.tflite": b"lite"}, set()),
        (
            {"m/small.tflite": b"lite", "m/batching_params.pbtxt": b"p", "m/assets.extra/warm": b"w"},
            {"batching_params.pbtxt", "assets.extra"},
        ),
        ({"m/model.tflite": b"lite", "m/words.txt": b"w"}, {"words.txt"}),
        ({"m/small.tflite": b"lite", "m/model.tflite/x": b"x"}, set()),
    ],
)
async def test_a_tflite_file_lies_under_the_name_that_the_server_knows_until_it_is_discarded(
    node: Node, files: dict[str, bytes], beside: set[str]
) -> None:
    for path, kept in files.items():
        node.objects.put_bytes(f"runs/r/1/outputs/{path}", kept)
    served = content(a_version(files=files))

    found = await node.files.fetch(served, print)
    again = await node.files.fetch(served, print)

    assert again == found
    assert (found.path / "model.tflite").read_bytes() == b"lite"
    assert {it.name for it in found.path.iterdir()} == {"model.tflite", *beside}
    await node.files.discard(served)
    assert not found.path.exists()


async def test_code_gets_a_copy_of_its_folder_with_modes_and_empty_folders(node: Node) -> None:
    found = await node.files.fetch(with_code(node.sent(), "mnist"), print)

    assert {path: (found.path / path).read_bytes() for path in FILES} == FILES
    assert (found.path / "empty").is_dir()
    assert (found.path / "run.sh").stat().st_mode & 0o111
    assert not (found.path / "score.py").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("versions", "paths"),
    [
        (["mnist"], ["model/saved_model.pb"]),
        (["words"], ["words.txt"]),
        (["mnist", "words"], ["mnist/2/model/saved_model.pb", "words/2/words.txt"]),
        ([], []),
    ],
)
async def test_models_lie_where_azure_has_them(node: Node, versions: list[str], paths: list[str]) -> None:
    found = await node.files.fetch(with_code(node.sent(), *versions), print)

    assert found.model_dir is not None
    assert found.model_dir.is_dir()
    assert all((found.model_dir / path).is_file() for path in paths)


async def test_what_a_script_writes_into_its_folder_is_no_matter_of_the_next_one(node: Node) -> None:
    first = await node.files.fetch(with_code(node.sent()), print)
    (first.path / "score.py").write_text("changed")

    second = await node.files.fetch(with_code(node.sent(), deployment=2), print)
    again = await node.files.fetch(with_code(node.sent()), print)

    assert [(it.path / "score.py").read_bytes() for it in (second, again)] == [b"import helper"] * 2
    assert again.path == first.path != second.path


async def test_what_was_fetched_once_is_there_when_the_store_is_away(node: Node) -> None:
    code = node.sent()
    await node.files.fetch(with_code(code, "mnist"), print)

    class Away(MemoryObjects):
        def get_file(self, key: str, path: Path) -> None:
            raise PlatformUnavailableException("the object store does not answer")

    found = await node.new(Away()).fetch(with_code(code, "mnist"), print)

    assert (found.path / "score.py").read_bytes() == b"import helper"
    assert (found.model_dir / "model/saved_model.pb").read_bytes() == b"graph"  # type: ignore[operator]


async def test_what_is_discarded_is_gone_and_the_models_stay(node: Node) -> None:
    served = with_code(node.sent(), "mnist")
    found = await node.files.fetch(served, print)

    await node.files.discard(served)

    assert not found.path.exists()
    assert (await node.files.fetch(content(), print)).path.is_dir()


async def test_a_source_that_is_gone_or_changed_is_named(node: Node) -> None:
    code = node.sent()
    blob = next(key for key in node.objects.kept if key.startswith("snapshots/blobs/"))
    node.objects.put_bytes(blob, b"x" * len(node.objects.get_bytes(blob)))
    with pytest.raises(CannotServe) as changed:
        await node.files.fetch(with_code(code), print)
    del node.objects.kept[blob]
    with pytest.raises(CannotServe) as gone:
        await node.files.fetch(with_code(code), print)

    assert (changed.value.failure.code, gone.value.failure.code) == ("SnapshotCorrupt", "SnapshotMissing")
    assert not list((node.folder / "cache" / "sources").iterdir())


async def test_a_script_that_is_not_there_is_refused_with_what_is(node: Node) -> None:
    with pytest.raises(CannotServe, match="it has: lib/helper.py, run.sh, score.py"):
        await node.files.fetch(with_code(node.sent("skore.py")), print)


async def test_paths_that_lead_out_of_the_folder_are_refused(node: Node) -> None:
    code = scoring()
    code.source.inline.files["../outside.py"] = b""

    with pytest.raises(CannotServe):
        await node.files.fetch(with_code(code), print)
    assert not list(node.folder.rglob("outside.py"))
