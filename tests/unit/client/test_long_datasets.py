"""Datasets of more files than an event has room for: their lists lie in the store, and nobody who uses one has to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.unit.client.platform import Platform
from trainyard import Dataset, Experiment, Run, TrainyardException, Workspace, _file_lists
from trainyard._lineage import runs_of
from trainyard.dataset.v1 import dataset_pb2
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2

COUNT = 50_000


@pytest.fixture
def workspace(platform: Platform, cli: Callable[..., Result]) -> Workspace:
    return Workspace.from_config()


@pytest.fixture
def long(platform: Platform) -> dataset_pb2.Dataset:
    """Version 1 of "long": 50,000 small files of a datastore."""
    content = b"x"
    digest = hashlib.sha256(content).hexdigest()
    platform.objects.put_bytes(f"datastores/blobs/{digest}", content)
    files = [
        dataset_pb2.SourceFile(
            url=f"datastore://data/many/{number}", path=f"{number}", size_bytes=1, sha256=digest, object_key=f"datastores/blobs/{digest}"
        )
        for number in range(COUNT)
    ]
    key, sha256, count = _file_lists.put(platform.objects, files)
    message = dataset_pb2.Dataset(name="long", version=1, total_bytes=COUNT, manifest_key=key, manifest_sha256=sha256, count=count)
    platform.datasets["long"] = [message]
    return message


def test_urls_that_no_event_holds_are_registered_by_the_name_of_their_list(platform: Platform, workspace: Workspace) -> None:
    urls = [f"http://data.example/many/{number}" for number in range(COUNT)]

    made = Dataset.File.from_files(urls).register(workspace, "many")

    request = platform.last(dataset_pb2.RegisterDataset)
    assert (len(request.urls), request.count) == (0, COUNT)
    assert request.ByteSize() < 1_000
    assert made.to_path() == [f"/http/data.example/many/{number}" for number in range(COUNT)]


def test_a_version_whose_files_are_listed_in_the_store_is_used_as_any_other(
    platform: Platform, workspace: Workspace, long: dataset_pb2.Dataset, tmp_path: Path
) -> None:
    found = Dataset.get_by_name(workspace, "long")

    assert repr(found) == "FileDataset(name='long', version=1, sources=50000)"
    assert len(found.to_path()) == COUNT
    assert found.skip(1).take(2).to_path() == ["/1", "/2"]
    assert [Path(path).read_bytes() for path in found.take(2).download(str(tmp_path / "two"))] == [b"x", b"x"]
    with found.take(1).mount() as mounted:
        assert [it.name for it in Path(mounted.mount_point).iterdir()] == ["0"]


def test_an_input_of_such_a_version_names_its_list_and_writes_none(
    platform: Platform, workspace: Workspace, long: dataset_pb2.Dataset
) -> None:
    before = dict(platform.objects.kept)

    whole = Dataset.get_by_name(workspace, "long").as_named_input("data")._to_message()
    part = Dataset.get_by_name(workspace, "long").take(3).as_named_input("data")._to_message()

    for made in (whole, part):
        assert (made.dataset, made.version, len(made.files)) == ("long", 1, 0)
        assert (made.manifest_key, made.manifest_sha256) == (long.manifest_key, long.manifest_sha256)
    assert [len(made.steps) for made in (whole, part)] == [0, 1]
    assert platform.objects.kept == before


def test_the_command_counts_the_files_of_such_a_version_and_lists_them(
    cli: Callable[..., Result], workspace: Workspace, long: dataset_pb2.Dataset
) -> None:
    listed = json.loads(cli("dataset", "list", "--json").stdout)
    shown = json.loads(cli("dataset", "show", "long", "--json").stdout)

    assert (listed["files"], listed["bytes"]) == (COUNT, COUNT)
    assert (len(shown["files"]), shown["bytes"]) == (COUNT, COUNT)


@pytest.mark.parametrize(("content", "why"), [(None, "has no datastores/manifests/"), (b"else", "its digest differs")])
def test_a_list_that_is_gone_or_altered_is_one_clear_error(
    platform: Platform, workspace: Workspace, long: dataset_pb2.Dataset, content: bytes | None, why: str
) -> None:
    platform.objects.remove(long.manifest_key)
    if content is not None:
        platform.objects.put_bytes(long.manifest_key, content)

    with pytest.raises(TrainyardException, match=why) as caught:
        Dataset.get_by_name(workspace, "long").to_path()

    assert caught.value.target == long.manifest_key


def test_an_input_that_names_a_list_says_whose_outputs_it_holds(
    platform: Platform, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [
        Artifact(path=f"outputs/{number}", size_bytes=1, sha256="0" * 64, object_key=f"runs/exp_1/1/{number}") for number in range(3)
    ]
    run = job_pb2.Run(run_id="exp_1", experiment="exp", status=job_pb2.RUN_STATUS_COMPLETED, outputs=ArtifactSet(files=outputs))
    run.spec.entry_script = "train.py"
    platform.runs["exp_1"] = history_pb2.RunView(run=run)
    path = Run(Experiment(workspace, "exp"), "exp_1")._get_outputs_datapath()

    short = path._to_input("before")._to_message()
    monkeypatch.setattr(_file_lists, "MOST_BYTES_IN_MESSAGE", 10)
    listed = path._to_input("before")._to_message()

    assert (runs_of(short.files), list(short.run_ids)) == ({"exp_1"}, [])
    assert (len(listed.files), bool(listed.manifest_key), list(listed.run_ids)) == (0, True, ["exp_1"])
