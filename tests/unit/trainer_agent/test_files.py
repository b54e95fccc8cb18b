from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.adapters.environment import FOR_SCRIPTS, only
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.snapshots import Snapshots
from services.trainer_agent.inputs import Inputs
from services.trainer_agent.interpreting import ScriptPython
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.script_environment import ALIAS, RUN_CONTEXT, TENSORFLOW_1, RunToken, argv, variables
from trainyard import _steps, _transfer
from trainyard._artifacts import MOST_BYTES_IN_EVENT, resolve
from trainyard._errors import PlatformUnavailableException, UserErrorException
from trainyard._objects import MemoryObjects
from trainyard._paths import sha256_file
from trainyard._transfer import Stopped
from trainyard.cluster.v1.cluster_pb2 import LeaseOffered
from trainyard.dataset.v1.dataset_pb2 import SourceFile
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1.spec_pb2 import DatasetInput, Snapshot


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


# -- the node's cache


def put(blobs: Blobs, data: bytes, name: str = "") -> Path:
    with blobs.part(name or sha256(data)) as part:
        part.write_bytes(data)
        return blobs.take_in(part, name)[0]


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
    assert blobs.get(sha256(b"other")) is None and blobs.get(sha256(b"data")) is None


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

    assert snapshots.unpack(snapshot, tmp_path / "one") == (2, 2)
    objects.kept.clear()
    assert snapshots.unpack(snapshot, tmp_path / "two") == (2, 0)

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


def keep(objects: MemoryObjects, folders: list[tuple[str, Path]], epoch: int = 1) -> tuple[ArtifactSet, list[str]]:
    store = OutputStore(objects)
    files, warnings = store.upload("run", epoch, folders, lambda: False)
    return store.listed("run", epoch, files, lambda: False), warnings


def test_outputs_are_saved_below_their_epoch_with_digests_and_odd_names(tmp_path: Path) -> None:
    objects = MemoryObjects()
    for name in ("-1.index", "a b", "ü", "deep/er/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    saved, warnings = keep(objects, [("outputs", tmp_path)], epoch=2)

    assert [file.path for file in saved.files] == ["outputs/-1.index", "outputs/a b", "outputs/deep/er/x", "outputs/ü"]
    assert {file.object_key for file in saved.files} == {f"runs/run/2/{file.path}" for file in saved.files} == set(objects.kept)
    assert all(file.sha256 == sha256_file(tmp_path / file.path.removeprefix("outputs/")) for file in saved.files)
    assert warnings == []


def test_links_and_names_that_cannot_travel_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "back\\slash").write_text("x")
    (tmp_path / "good").write_text("x")

    saved, warnings = keep(MemoryObjects(), [("outputs", tmp_path)])

    assert [file.path for file in saved.files] == ["outputs/good"]
    assert sorted(warning.split("'")[1] for warning in warnings) == ["outputs/back\\\\slash", "outputs/link"]


def test_a_folder_of_results_that_has_become_a_link_or_a_file_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    (tmp_path / "outputs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "logs").write_text("x")

    folders = [("outputs", tmp_path / "outputs"), ("logs", tmp_path / "logs"), ("azureml-logs", tmp_path / "none")]
    saved, warnings = keep(MemoryObjects(), folders)

    assert list(saved.files) == []
    assert [warning.split("'")[1] for warning in warnings] == ["outputs", "logs"]


def test_a_link_to_a_folder_is_left_out_and_named_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "etc").symlink_to("/etc")

    saved, warnings = keep(MemoryObjects(), [("outputs", tmp_path)])

    assert list(saved.files) == []
    assert [warning.split("'")[1] for warning in warnings] == ["outputs/deep/etc"]


def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        failures = 2

        def put_bytes(self, key: str, data: bytes) -> None:
            if self.failures:
                self.failures -= 1
                raise PlatformUnavailableException("away")
            super().put_bytes(key, data)

    (tmp_path / "a").write_text("x")

    saved, _ = keep(Away(), [("outputs", tmp_path)])

    assert len(saved.files) == 1


def test_a_list_that_an_event_has_no_room_for_is_an_object_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200) / ("e" * 200)
    folder.mkdir(parents=True)
    for number in range(1500):
        (folder / str(number)).touch()
    objects = MemoryObjects()

    saved, warnings = keep(objects, [("outputs", tmp_path)])

    assert saved.ByteSize() <= MOST_BYTES_IN_EVENT
    assert saved.manifest_key.startswith("runs/run/1/manifests/") and saved.count == 1500
    assert len(resolve(objects, saved).files) == 1500
    assert warnings == []


def test_more_files_than_a_run_may_leave_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer_agent.adapters.outputs.MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()

    saved, warnings = keep(MemoryObjects(), [("outputs", tmp_path)])

    assert [file.path for file in saved.files] == ["outputs/a", "outputs/b"]
    assert warnings == ["3 files are more than 2: 1 were not saved, those after 'outputs/b'"]


def test_outputs_that_are_a_link_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to("/etc")

    saved, warnings = keep(MemoryObjects(), [("outputs", tmp_path / "outputs")])

    assert not saved.files
    assert warnings == ["'outputs' was not saved: it is a link or no folder any more"]


def test_names_travel_in_one_form_and_those_that_cannot_are_named(tmp_path: Path) -> None:
    composed, decomposed = "\u00dc.png", "U\u0308.png"  # as most systems write it, and as a Mac's archives do
    (tmp_path / "deep").mkdir()
    for name in (f"deep/{decomposed}", composed, decomposed, "100%25.txt"):
        (tmp_path / name).write_text("x")

    saved, warnings = OutputStore(MemoryObjects()).upload("exp_1", 1, [("outputs", tmp_path)], lambda: False)

    assert [it.path for it in saved] == [f"outputs/deep/{composed}", f"outputs/{composed}"]
    assert sorted(warning.partition(":")[0] for warning in warnings) == [
        "'outputs/100%25.txt' was not saved",
        f"'outputs/{composed}' was saved once",
    ]


def test_a_snapshot_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        failures = 5

        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            if self.failures:
                self.failures -= 1
                raise PlatformUnavailableException("away")
            return super().read(key, start)

    objects = Away()
    snapshot = a_snapshot(objects, train=b"1")

    assert Snapshots(objects, Blobs(tmp_path / "cache")).unpack(snapshot, tmp_path / "code") == (1, 1)
    assert (tmp_path / "code" / "train.py").read_bytes() == b"1"


def test_a_stopped_attempt_waits_for_no_store(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        asked = 0

        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            self.asked += 1
            raise PlatformUnavailableException("away")

    objects = Away()
    snapshot = a_snapshot(objects, train=b"1")

    with pytest.raises(PlatformUnavailableException):
        Snapshots(objects, Blobs(tmp_path / "cache")).unpack(snapshot, tmp_path / "code", lambda: objects.asked > 0)

    assert objects.asked == 1


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


def the_variables(
    own: dict[str, str],
    offer: Any = None,
    inputs: dict[str, str] | None = None,
    gang: dict[str, str] | None = None,
    threads: dict[str, str] | None = None,
    **python: Any,
) -> dict[str, str]:
    script_python = ScriptPython(Path("/env/bin/python"), Path("/env"), **python)
    return variables(
        own,
        offer or an_offer(),
        python=script_python,
        inputs=inputs or {"mnist": "/data/m"},
        socket=Path("/s"),
        temporary=Path("/t"),
        spool=Path("/spool"),
        marks={"TRAINYARD_NODE": "n"},
        token=RunToken("a token", 7),
        gang=gang or {},
        threads=threads or {},
    )


def test_a_script_gets_azures_names_its_inputs_and_its_own_variables() -> None:
    given = the_variables({"PATH": "/bin"})

    assert given["AZUREML_RUN_ID"] == "exp_1_ab"
    assert given["AZUREML_ARM_PROJECT_NAME"] == "exp"
    assert given["mnist"] == given["MNIST"] == given["AZUREML_DATAREFERENCE_mnist"] == "/data/m"
    assert given["AZUREML_DATASET_ENVIRONMENT_VARS"] == "mnist:mount"
    assert given["MODE"] == "fast"
    assert given["PATH"] == "/env/bin:/bin"


def test_what_a_gang_needs_goes_before_a_scripts_own_variables_and_threads_go_behind() -> None:
    offer = an_offer()
    offer.spec.environment.environment_variables.update({"TF_CONFIG": "mine", "CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "7"})

    given = the_variables(
        {"OMP_NUM_THREADS": "9"}, offer, gang={"TF_CONFIG": "{}", "CUDA_VISIBLE_DEVICES": "1"}, threads={"OMP_NUM_THREADS": "2", "X": "2"}
    )

    assert (given["TF_CONFIG"], given["CUDA_VISIBLE_DEVICES"]) == ("{}", "1")
    assert (given["OMP_NUM_THREADS"], given["X"]) == ("7", "2")


@pytest.mark.parametrize("none", ["", "-1"])
def test_a_script_may_want_none_of_its_devices(none: str) -> None:
    offer = an_offer()
    offer.spec.environment.environment_variables["CUDA_VISIBLE_DEVICES"] = none

    assert the_variables({}, offer, gang={"CUDA_VISIBLE_DEVICES": "3"})["CUDA_VISIBLE_DEVICES"] == ""


SIGNS_OF_AN_ONLINE_RUN = {"AZUREML_RUN_TOKEN", "AZUREML_RUN_TOKEN_EXPIRY", "AZUREML_SERVICE_ENDPOINT", "AZUREML_DISCOVERY_SERVICE_ENDPOINT"}


def test_a_script_finds_all_by_which_azures_scripts_know_that_they_are_in_a_run() -> None:
    given = the_variables({})

    assert {name: given[name] for name in sorted(SIGNS_OF_AN_ONLINE_RUN)} == {
        "AZUREML_DISCOVERY_SERVICE_ENDPOINT": "unix:///s",
        "AZUREML_RUN_TOKEN": "a token",
        "AZUREML_RUN_TOKEN_EXPIRY": "7",
        "AZUREML_SERVICE_ENDPOINT": "unix:///s",
    }
    assert given["AZUREML_WORKSPACE_ID"] == "local"


def test_azures_own_sdk_is_not_made_to_believe_that_its_service_is_at_hand() -> None:
    assert not SIGNS_OF_AN_ONLINE_RUN & the_variables({}, has_azureml=True).keys()


def test_a_token_is_its_attempts_own_and_lasts_as_long_as_the_script_may() -> None:
    first, second = RunToken.new(100.0, 60.0), RunToken.new(100.0, None)

    assert first.value != second.value and len(first.value) > 40
    assert (first.expires, second.expires) == (160, 100 + 30 * 86_400)


def test_the_framework_that_the_submitter_named_is_told_to_the_script() -> None:
    offer = an_offer()
    offer.spec.framework = "TensorFlow"

    assert the_variables({}, offer)["AZUREML_FRAMEWORK"] == "TensorFlow"


@pytest.mark.security
@pytest.mark.parametrize(
    "name", ["PATH", "path", "pythonpath", "trainyard_run_socket", "TRAINYARD_SPOOL", "tmpdir", "azureml_run_id", "trainyard_node"]
)
def test_an_input_takes_no_variable_that_the_run_needs(name: str) -> None:
    before = the_variables({"PATH": "/bin"})

    given = the_variables({"PATH": "/bin"}, inputs={name: "/data/m"})

    assert given[name.upper()] == before[name.upper()]
    assert given[f"AZUREML_DATAREFERENCE_{name}"] == "/data/m"
    assert json.loads(given["TRAINYARD_INPUTS"]) == {name: "/data/m"}


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
    words = argv(ScriptPython(Path("/env/bin/python"), Path("/env")), an_offer(), {"mnist": "/data/m"}, {"x": "y"})

    assert words == ["/env/bin/python", "train.py", "--data", "/data/m", "$(touch x); *"]


def test_a_commands_words_have_the_scripts_variables_filled_in_once_and_no_shell() -> None:
    offer = LeaseOffered()
    offer.spec.command.extend(["python", "${HOME}/a.py", "--data=$mnist", "$UNKNOWN", "$$HOME", "; rm *", "$(id)"])

    words = argv(ScriptPython(Path("/env/bin/python"), Path("/env")), offer, {}, {"HOME": "/h", "mnist": "$HOME"})

    assert words == ["python", "/h/a.py", "--data=$HOME", "$UNKNOWN", "$HOME", "; rm *", "$(id)"]


def test_the_alias_package_is_on_a_scripts_path_unless_the_real_one_is_installed_there() -> None:
    with_ours = the_variables({})["PYTHONPATH"].split(":")
    with_theirs = the_variables({}, has_azureml=True)["PYTHONPATH"].split(":")

    assert with_ours == [str(RUN_CONTEXT), str(ALIAS)]
    assert with_theirs == [str(RUN_CONTEXT)]
    assert (ALIAS / "azureml" / "core").is_dir()


def test_version_1_of_tensorflow_stands_before_the_environments_own() -> None:
    path = the_variables({}, tensorflow_1=True)["PYTHONPATH"].split(":")

    assert path[0] == str(TENSORFLOW_1)
    assert (TENSORFLOW_1 / "tensorflow" / "__init__.py").is_file()


def test_a_scripts_own_python_path_comes_first_and_keeps_its_run_context() -> None:
    offer = an_offer()
    offer.spec.environment.environment_variables["PYTHONPATH"] = "lib"

    assert the_variables({}, offer)["PYTHONPATH"].split(":") == ["lib", str(RUN_CONTEXT), str(ALIAS)]


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
    def download(targets: Any, *_: Any) -> None:
        for target in targets.values():
            target.write_bytes(b"new")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    source = SourceFile(url="http://host/a", path="a", sha256=sha256(b"old"))

    with pytest.raises(PreparationFailed) as caught:
        Data(Blobs(tmp_path / "cache"), MemoryObjects()).place([(source, tmp_path / "a")], writable=False)

    assert caught.value.failure.code == "DatasetChanged"
    assert sha256(b"old") in caught.value.failure.message and sha256(b"new") in caught.value.failure.message


def test_a_file_is_fetched_once_a_node_and_mounted_or_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def download(targets: Any, *_: Any) -> None:
        for url, target in targets.items():
            fetched.append(url)
            target.write_bytes(b"data")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    data = Data(Blobs(tmp_path / "cache"), MemoryObjects())
    source = SourceFile(url="http://host/a", path="a", sha256=sha256(b"data"))

    (measured,) = data.place([(source, tmp_path / "mounted")], writable=False)
    data.place([(source, tmp_path / "copied")], writable=True)
    (tmp_path / "copied").write_bytes(b"changed")

    assert fetched == ["http://host/a"]
    assert (measured.size_bytes, measured.sha256) == (4, sha256(b"data"))
    assert (tmp_path / "mounted").read_bytes() == b"data"
    assert not (tmp_path / "mounted").stat().st_mode & 0o222


def test_one_url_under_two_paths_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(targets: Any, *_: Any) -> None:
        for target in targets.values():
            target.write_bytes(b"data")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    sources = [(SourceFile(url="http://host/a", path=name), tmp_path / name) for name in ("a", "b")]

    measured = Data(Blobs(tmp_path / "cache"), MemoryObjects()).place(sources, writable=False)

    assert [file.sha256 for file in measured] == [sha256(b"data")] * 2
    assert (tmp_path / "b").read_bytes() == b"data"


def test_a_download_ends_with_its_attempt(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never"

        with pytest.raises(PreparationFailed, match="ended with -9"):
            data = Data(Blobs(tmp_path / "cache"), MemoryObjects())
            data.place([(SourceFile(url=url), tmp_path / "a")], writable=False, stopped=lambda: True)


def stored(objects: MemoryObjects, data: bytes) -> Any:
    digest = sha256(data)
    objects.put_bytes(f"datastores/blobs/{digest}", data)
    return SourceFile(url="datastore://d/a", path="a", size_bytes=len(data), sha256=digest, object_key=f"datastores/blobs/{digest}")


def test_a_file_of_a_datastore_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    class Away(MemoryObjects):
        failures = 5

        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            if self.failures:
                self.failures -= 1
                raise PlatformUnavailableException("away")
            return super().read(key, start)

    objects = Away()
    source = stored(objects, b"data")

    Data(Blobs(tmp_path / "cache"), objects).place([(source, tmp_path / "a")], writable=False)

    assert (tmp_path / "a").read_bytes() == b"data"


def test_what_came_from_the_store_before_an_attempt_was_stopped_is_gone_on_with(tmp_path: Path) -> None:
    class Watched(MemoryObjects):
        starts: list[int] = []
        blocks = 0

        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            self.starts.append(start)
            for block in super().read(key, start):
                self.blocks += 1
                yield block

    objects = Watched()
    source = stored(objects, bytes(5 << 20))
    data = Data(Blobs(tmp_path / "cache"), objects)

    with pytest.raises(Stopped):
        data.place([(source, tmp_path / "a")], writable=False, stopped=lambda: objects.blocks >= 3)
    data.place([(source, tmp_path / "a")], writable=False)

    assert objects.starts == [0, 2 << 20]
    assert (tmp_path / "a").stat().st_size == 5 << 20


def test_a_stopped_attempt_waits_for_no_other_ones_download(tmp_path: Path) -> None:
    objects, blobs = MemoryObjects(), Blobs(tmp_path / "cache")
    source = stored(objects, b"data")

    with blobs.part(source.sha256), pytest.raises(Stopped):
        Data(blobs, objects).place([(source, tmp_path / "a")], writable=False, stopped=lambda: True)


def test_a_digest_that_is_none_names_nothing_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    data = Data(Blobs(tmp_path / "cache"), MemoryObjects())
    source = SourceFile(url="http://host/a", path="a", sha256="../../precious")

    with pytest.raises(PreparationFailed, match="no SHA-256"):
        data.place([(source, tmp_path / "a")], writable=False)

    assert (tmp_path / "precious").read_text() == "x"


def test_two_digests_that_are_named_for_one_url_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(targets: Any, *_: Any) -> None:
        for target in targets.values():
            target.write_bytes(b"data")

    monkeypatch.setattr("services.trainer_agent.adapters.data._download", download)
    known = SourceFile(url="http://host/a", path="known", sha256=sha256(b"data"))
    new = SourceFile(url="http://host/a", path="new")

    measured = Data(Blobs(tmp_path / "cache"), MemoryObjects()).place([(it, tmp_path / it.path) for it in (known, new)], writable=False)

    assert [(file.path, file.size_bytes) for file in measured] == [("known", 4), ("new", 4)]
    assert (tmp_path / "new").read_bytes() == b"data"


def test_many_outputs_are_listed_in_an_object_and_one_that_cannot_be_read_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = MemoryObjects()
    for number in range(3_000):
        (tmp_path / f"{number}").write_text(str(number))
    send = _transfer.send

    def refused(store: MemoryObjects, key: str, path: Path) -> _transfer.Sent:
        if path.name == "7":
            raise PermissionError(13, "Permission denied")
        return send(store, key, path)

    monkeypatch.setattr(_transfer, "send", refused)

    saved, warnings = keep(objects, [("outputs", tmp_path)])

    assert (len(saved.files), saved.count, saved.ByteSize() < 1000) == (0, 2_999, True)
    assert saved.manifest_key.startswith("runs/run/1/manifests/")
    assert [file.path for file in resolve(objects, saved).files] == sorted(f"outputs/{number}" for number in range(3_000) if number != 7)
    assert warnings == ["'outputs/7' was not saved: Permission denied"]


# -- where inputs lie


def place_input(tmp_path: Path, *names: str, **fields: Any) -> tuple[Folders, Any]:
    objects = MemoryObjects()
    item = DatasetInput(name="data", dataset="letters", version=1, **{"mode": DatasetInput.MODE_MOUNT, **fields})
    for name in names:
        key = f"datastores/blobs/{sha256(name.encode())}"
        objects.put_bytes(key, name.encode())
        item.files.add(url=f"datastore://d/{name}", path=name, size_bytes=len(name), sha256=sha256(name.encode()), object_key=key)
    folders = Folders.make(tmp_path / "home", "agent-0", "run", 1)
    return folders, Inputs(Data(Blobs(tmp_path / "cache"), objects), folders, lambda line: None).place(item)


def test_one_file_is_given_itself_unless_a_folder_is_asked_for(tmp_path: Path) -> None:
    folders, one = place_input(tmp_path, "deep/a")
    _, whole = place_input(tmp_path, "deep/a", always_folder=True)
    _, two = place_input(tmp_path, "deep/a", "b")

    assert one.path == folders.data / "data/deep/a"
    assert whole.path == two.path == folders.data / "data"
    folders.remove()


def test_steps_are_done_again_on_the_node(tmp_path: Path) -> None:
    folders, placed = place_input(tmp_path, "a", "b", "c", steps=[_steps.skip(1)])
    with pytest.raises(PreparationFailed, match=r"no file left after skip\(3\)"):
        place_input(tmp_path, "a", "b", "c", steps=[_steps.skip(3)])

    assert [file.path for file in placed.files] == ["b", "c"]
    folders.remove()


def test_a_path_on_the_node_is_a_link_that_goes_with_the_attempt(tmp_path: Path) -> None:
    wanted = tmp_path / "mnt" / "letters"
    folders, placed = place_input(tmp_path, "a", "b", path_on_compute=str(wanted))
    seen = sorted(path.name for path in wanted.iterdir())
    folders.remove()

    assert (placed.path, seen) == (wanted, ["a", "b"])
    assert not wanted.is_symlink()


def test_a_path_that_is_taken_on_the_node_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")

    with pytest.raises(PreparationFailed, match="cannot be put at .*mine"):
        place_input(tmp_path, "a", path_on_compute=str(tmp_path / "mine"))

    Folders.sweep(tmp_path / "home", "agent-0")
    assert (tmp_path / "mine/file").read_text() == "x"


def test_a_killed_agents_link_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "left").symlink_to(tmp_path / "home" / "work" / "agent-1" / "run.1" / "data")

    folders, placed = place_input(tmp_path, "a", "b", path_on_compute=str(tmp_path / "left"))

    assert sorted(path.name for path in placed.path.iterdir()) == ["a", "b"]
    folders.remove()


def test_a_direct_input_is_its_definition(tmp_path: Path) -> None:
    folders, placed = place_input(tmp_path, "a", mode=DatasetInput.MODE_DIRECT)

    told = json.loads(placed.path.read_text())

    assert (told["name"], told["version"], told["files"][0]["path"], told["files"][0]["size"]) == ("letters", 1, "a", 1)
    assert not (folders.data / "data").exists()
    folders.remove()


@pytest.mark.parametrize("key", ["snapshots/blobs/x", "secrets", "datastores/names/d"])
def test_a_run_is_given_nothing_of_the_store_but_datasets_and_what_runs_left(tmp_path: Path, key: str) -> None:
    objects = MemoryObjects()
    objects.put_bytes(key, b"x")
    source = SourceFile(url="datastore://d/a", path="a", size_bytes=1, sha256=sha256(b"x"), object_key=key)

    with pytest.raises(PreparationFailed, match="no file that a run may read"):
        Data(Blobs(tmp_path / "cache"), objects).place([(source, tmp_path / "a")], writable=False)


@pytest.mark.security
@pytest.mark.parametrize("run_id", ["../../victim", "/etc", "a/../../../victim"])
def test_no_folder_is_made_or_removed_for_a_run_id_that_leads_elsewhere(tmp_path: Path, run_id: str) -> None:
    victim = tmp_path / "victim.1"
    victim.mkdir()

    with pytest.raises(UserErrorException):
        Folders.make(tmp_path, "agent-0", run_id, 1)

    assert victim.is_dir()
