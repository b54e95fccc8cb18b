from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.adapters.environment import FOR_SCRIPTS, only
from services.trainer_agent.adapters.outputs import MOST_LIST_BYTES, OutputStore
from services.trainer_agent.adapters.snapshots import Snapshots
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.script_environment import argv, variables
from trainyard._errors import PlatformUnavailableException, UserErrorException
from trainyard._objects import MemoryObjects
from trainyard._paths import sha256_file
from trainyard.cluster.v1.cluster_pb2 import LeaseOffered
from trainyard.dataset.v1.dataset_pb2 import SourceFile
from trainyard.job.v1.spec_pb2 import Snapshot


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# -- the node's cache


def put(blobs: Blobs, data: bytes, name: str = "") -> Path:
    with blobs.incoming() as incoming:
        incoming.write_bytes(data)
        return blobs.take_in(incoming, name)[0]


def test_a_blob_is_found_by_its_digest(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)

    path = put(blobs, b"data", sha256(b"data"))

    assert blobs.get(sha256(b"data")) == path
    assert blobs.get(sha256(b"other")) is None


def test_other_bytes_than_those_named_are_not_taken_in(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)

    with pytest.raises(WrongDigest) as caught:
        put(blobs, b"data", sha256(b"other"))

    assert (caught.value.wanted, caught.value.found) == (sha256(b"other"), sha256(b"data"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_threads_that_take_in_equal_files_do_not_meet(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: put(blobs, b""), range(200)))

    assert paths == {blobs.path(sha256(b""))}


def test_a_blob_that_was_written_to_is_not_given_out_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    path = put(blobs, b"data")

    path.chmod(0o644)
    path.write_bytes(b"DATA")
    os.utime(path, ns=(1, 1))

    assert blobs.get(sha256(b"data")) is None


def test_a_blob_that_was_only_touched_is_checked_and_kept(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    path = put(blobs, b"data")

    os.utime(path, ns=(1, 1))

    assert blobs.get(sha256(b"data")) == path


# -- snapshots


def a_snapshot(objects: MemoryObjects, **files: bytes) -> Any:
    made = Snapshot(id="s")
    for name, data in files.items():
        objects.put_bytes(f"snapshots/blobs/{sha256(data)}", data)
        made.files.add(path=f"{name}.py", size_bytes=len(data), sha256=sha256(data), executable=name == "tool")
    return made


def test_a_snapshot_is_unpacked_and_fetched_once(tmp_path: Path) -> None:
    objects = MemoryObjects()
    snapshots = Snapshots(objects, Blobs(tmp_path / "cache"))
    snapshot = a_snapshot(objects, train=b"1", tool=b"2")

    assert snapshots.unpack(snapshot, tmp_path / "one") == 2
    objects.kept.clear()
    assert snapshots.unpack(snapshot, tmp_path / "two") == 0

    assert (tmp_path / "two" / "train.py").read_bytes() == b"1"
    assert os.access(tmp_path / "two" / "tool.py", os.X_OK)


def test_a_script_that_writes_into_its_folder_does_not_harm_the_cache(tmp_path: Path) -> None:
    objects = MemoryObjects()
    snapshots = Snapshots(objects, Blobs(tmp_path / "cache"))
    snapshot = a_snapshot(objects, train=b"1")
    snapshots.unpack(snapshot, tmp_path / "one")

    (tmp_path / "one" / "train.py").write_bytes(b"spoilt")
    snapshots.unpack(snapshot, tmp_path / "two")

    assert (tmp_path / "two" / "train.py").read_bytes() == b"1"


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    objects = MemoryObjects()
    snapshots = Snapshots(objects, Blobs(tmp_path / "cache"))
    snapshot = a_snapshot(objects, train=b"1")
    key = f"snapshots/blobs/{sha256(b'1')}"

    objects.put_bytes(key, b"other")
    with pytest.raises(PreparationFailed) as damaged:
        snapshots.unpack(snapshot, tmp_path / "one")
    objects.remove(key)
    with pytest.raises(PreparationFailed) as missing:
        snapshots.unpack(snapshot, tmp_path / "one")

    assert [(it.value.failure.code, it.value.failure.target) for it in (damaged, missing)] == [
        ("SnapshotCorrupt", "train.py"),
        ("SnapshotMissing", "train.py"),
    ]


@pytest.mark.security
def test_a_digest_that_is_a_path_touches_no_file_outside_of_the_cache(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    name = f"{'../' * 20}{victim}"

    with pytest.raises(PreparationFailed, match=r"no SHA-256"):
        Snapshots(MemoryObjects(), Blobs(tmp_path / "cache" / "blobs")).unpack(
            Snapshot(files=[{"path": "train.py", "sha256": name}]), tmp_path / "code"
        )

    assert victim.read_text() == "keep me"


# -- outputs


def test_outputs_are_saved_below_their_epoch_with_digests_and_odd_names(tmp_path: Path) -> None:
    objects = MemoryObjects()
    for name in ("-1.index", "a b", "ü", "deep/er/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    saved, warnings = OutputStore(objects).save("run", 2, [("outputs", tmp_path)], lambda: False)

    assert [file.path for file in saved.files] == ["outputs/-1.index", "outputs/a b", "outputs/deep/er/x", "outputs/ü"]
    assert {file.object_key for file in saved.files} == {f"runs/run/2/{file.path}" for file in saved.files} == set(objects.kept)
    assert all(file.sha256 == sha256_file(tmp_path / file.path.removeprefix("outputs/")) for file in saved.files)
    assert warnings == []


def test_links_and_names_that_cannot_travel_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "back\\slash").write_text("x")
    (tmp_path / "good").write_text("x")

    saved, warnings = OutputStore(MemoryObjects()).save("run", 1, [("outputs", tmp_path)], lambda: False)

    assert [file.path for file in saved.files] == ["outputs/good"]
    assert sorted(warning.split("'")[1] for warning in warnings) == ["outputs/back\\\\slash", "outputs/link"]


def test_a_folder_of_results_that_has_become_a_link_or_a_file_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    (tmp_path / "outputs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs").write_text("x")

    folders = [("outputs", tmp_path / "outputs"), ("logs", tmp_path / "logs"), ("azureml-logs", tmp_path / "none")]
    saved, warnings = OutputStore(MemoryObjects()).save("run", 1, folders, lambda: False)

    assert list(saved.files) == []
    assert [warning.split("'")[1] for warning in warnings] == ["outputs", "logs"]


def test_a_link_to_a_folder_is_left_out_and_named_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "etc").symlink_to("/etc")

    saved, warnings = OutputStore(MemoryObjects()).save("run", 1, [("outputs", tmp_path)], lambda: False)

    assert list(saved.files) == []
    assert [warning.split("'")[1] for warning in warnings] == ["outputs/deep/etc"]


def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        failures = 2

        def put_file(self, key: str, path: Path) -> None:
            if self.failures:
                self.failures -= 1
                raise PlatformUnavailableException("away")
            super().put_file(key, path)

    (tmp_path / "a").write_text("x")

    saved, _ = OutputStore(Away()).save("run", 1, [("outputs", tmp_path)], lambda: False)

    assert len(saved.files) == 1


def test_more_files_than_one_message_can_list_are_left_out_and_told(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200) / ("e" * 200)
    folder.mkdir(parents=True)
    for number in range(1500):
        (folder / str(number)).touch()

    saved, warnings = OutputStore(MemoryObjects()).save("run", 1, [("outputs", tmp_path)], lambda: False)

    assert 500 < len(saved.files) < 1500
    assert saved.ByteSize() <= MOST_LIST_BYTES
    assert warnings[0].startswith("1500 files are more than one list takes")


def test_a_snapshot_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        failures = 2

        def get_file(self, key: str, path: Path) -> None:
            if self.failures:
                self.failures -= 1
                raise PlatformUnavailableException("away")
            super().get_file(key, path)

    objects = Away()
    snapshot = a_snapshot(objects, train=b"1")

    assert Snapshots(objects, Blobs(tmp_path / "cache")).unpack(snapshot, tmp_path / "code") == 1
    assert (tmp_path / "code" / "train.py").read_bytes() == b"1"


def test_a_stopped_attempt_waits_for_no_store(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        def get_file(self, key: str, path: Path) -> None:
            raise PlatformUnavailableException("away")

    objects = Away()
    snapshot = a_snapshot(objects, train=b"1")

    with pytest.raises(PlatformUnavailableException):
        Snapshots(objects, Blobs(tmp_path / "cache")).unpack(snapshot, tmp_path / "code", lambda: True)


# -- what a script is started with


def an_offer() -> Any:
    offer = LeaseOffered(run_id="exp_1_ab", epoch=3, experiment="exp")
    offer.spec.entry_script = "train.py"
    offer.spec.environment.environment_variables["MODE"] = "fast"
    offer.spec.inputs.add(name="mnist")
    offer.spec.arguments.add(text="--data")
    offer.spec.arguments.add(input="mnist")
    offer.spec.arguments.add(text="$(touch x); *")
    return offer


def the_variables(own: dict[str, str]) -> dict[str, str]:
    python = Path("/env/bin/python")
    return variables(
        own, an_offer(), python=python, inputs={"mnist": "/data/m"}, socket=Path("/s"), temporary=Path("/t"), marks={"TRAINYARD_NODE": "n"}
    )


def test_a_script_gets_azures_names_its_inputs_and_its_own_variables() -> None:
    given = the_variables({"PATH": "/bin"})

    assert given["AZUREML_RUN_ID"] == "exp_1_ab"
    assert given["AZUREML_ARM_PROJECT_NAME"] == "exp"
    assert given["mnist"] == given["MNIST"] == given["AZUREML_DATAREFERENCE_mnist"] == "/data/m"
    assert given["AZUREML_DATASET_ENVIRONMENT_VARS"] == "mnist:mount"
    assert given["MODE"] == "fast"
    assert given["PATH"] == "/env/bin:/bin"


def test_no_secret_of_the_agent_reaches_a_script() -> None:
    own = {
        "TRAINYARD_OBJECT_STORE__SECRET_KEY": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
        "MINIO_ROOT_PASSWORD": "s",
        "LANG": "C",
        "CUDA_VISIBLE_DEVICES": "0",
    }

    given = the_variables(own)

    assert "s" not in given.values()
    assert (given["LANG"], given["CUDA_VISIBLE_DEVICES"]) == ("C", "0")
    assert only(own, FOR_SCRIPTS) == {"LANG": "C", "CUDA_VISIBLE_DEVICES": "0"}


def test_arguments_are_words_and_never_a_shell_line() -> None:
    words = argv(Path("/env/bin/python"), an_offer(), {"mnist": "/data/m"})

    assert words == ["/env/bin/python", "train.py", "--data", "/data/m", "$(touch x); *"]


def test_what_a_killed_agent_left_behind_is_swept_away(tmp_path: Path) -> None:
    left = Folders.make(tmp_path, "agent-0", "run", 1)
    other = Folders.make(tmp_path, "agent-1", "run", 1)

    Folders.sweep(tmp_path, "agent-0")

    assert not left.root.exists() and not left.sockets.exists()
    assert other.root.exists() and other.sockets.exists()
    other.remove()


def test_an_attempt_begins_with_empty_folders_and_leaves_none(tmp_path: Path) -> None:
    first = Folders.make(tmp_path, "agent-0", "run", 1)
    (first.code / "left").write_text("x")

    second = Folders.make(tmp_path, "agent-0", "run", 1)
    assert list(second.code.iterdir()) == []
    second.remove()

    assert not second.root.exists()
    assert not second.sockets.exists()
    first.remove()


# -- data


def test_a_changed_source_is_refused_with_both_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(targets: Any, _: object) -> None:
        for target in targets.values():
            target.write_bytes(b"new")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    source = SourceFile(url="http://host/a", path="a", sha256=sha256(b"old"))

    with pytest.raises(PreparationFailed) as caught:
        Data(Blobs(tmp_path / "cache")).place([(source, tmp_path / "a")], writable=False)

    assert caught.value.failure.code == "DatasetChanged"
    assert sha256(b"old") in caught.value.failure.message and sha256(b"new") in caught.value.failure.message


def test_a_file_is_fetched_once_a_node_and_mounted_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def download(targets: Any, _: object) -> None:
        for url, target in targets.items():
            fetched.append(url)
            target.write_bytes(b"data")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    data = Data(Blobs(tmp_path / "cache"))
    source = SourceFile(url="http://host/a", path="a", sha256=sha256(b"data"))

    (measured,) = data.place([(source, tmp_path / "mounted")], writable=False)
    data.place([(source, tmp_path / "copied")], writable=True)
    (tmp_path / "copied").write_bytes(b"changed")

    assert fetched == ["http://host/a"]
    assert (measured.size_bytes, measured.sha256) == (4, sha256(b"data"))
    assert (tmp_path / "mounted").read_bytes() == b"data"
    assert not (tmp_path / "mounted").stat().st_mode & 0o222


def test_one_url_under_two_paths_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(targets: Any, _: object) -> None:
        for target in targets.values():
            target.write_bytes(b"data")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    sources = [(SourceFile(url="http://host/a", path=name), tmp_path / name) for name in ("a", "b")]

    measured = Data(Blobs(tmp_path / "cache")).place(sources, writable=False)

    assert [file.sha256 for file in measured] == [sha256(b"data")] * 2
    assert (tmp_path / "b").read_bytes() == b"data"


def test_a_download_ends_with_its_attempt(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never"

        with pytest.raises(PreparationFailed, match="ended with -9"):
            Data(Blobs(tmp_path / "cache")).place([(SourceFile(url=url), tmp_path / "a")], writable=False, stopped=lambda: True)


@pytest.mark.security
@pytest.mark.parametrize("run_id", ["../../victim", "/etc", "a/../../../victim"])
def test_no_folder_is_made_or_removed_for_a_run_id_that_leads_elsewhere(tmp_path: Path, run_id: str) -> None:
    victim = tmp_path / "victim.1"
    victim.mkdir()

    with pytest.raises(UserErrorException):
        Folders.make(tmp_path, "agent-0", run_id, 1)

    assert victim.is_dir()
