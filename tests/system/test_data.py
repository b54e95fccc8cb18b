"""Data on its way: datastores, datasets of them, inputs on the node, outputs of thousands of files, snapshots with odd names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system.platform import Platform
from trainyard import Dataset, Datastore, Model, Run, UserErrorException

LIST_INPUTS = """
import json, os, sys
from trainyard import Run
run = Run.get_context()
found = {}
for name, path in run.input_datasets.items():
    files = [path] if os.path.isfile(path) else sorted(
        os.path.join(here, name) for here, _, names in os.walk(path, followlinks=True) for name in names)
    found[name] = {
        "variables": [os.environ[name], os.environ[name.upper()], os.environ["AZUREML_DATAREFERENCE_" + name]],
        "path": path,
        "files": {os.path.relpath(file, path): open(file).read() for file in files},
        "writable": [os.stat(file).st_mode & 0o222 != 0 for file in files],
    }
print(os.environ["AZUREML_DATASET_ENVIRONMENT_VARS"])
os.makedirs("outputs", exist_ok=True)
json.dump({"argv": sys.argv[1:], "inputs": found}, open("outputs/found.json", "w"))
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def outcome(run: Run, tmp_path: Path) -> Any:
    run.wait_for_completion()
    run.download_file("outputs/found.json", str(tmp_path / "found.json"))
    return json.loads((tmp_path / "found.json").read_text())


def test_a_datasets_version_stays_as_it_was_when_its_place_is_written_over(platform: Platform, tmp_path: Path) -> None:
    pool, store = platform.pool("data").name, platform.workspace.get_default_datastore()
    source = write(tmp_path / "source", train__a="1", train__b="2", test__c="3", notes="n")
    store.upload(source, "over", show_progress=False)
    first = Dataset.File.from_files([(store, "over/train/*"), (store, "over/test")]).register(platform.workspace, "written over")

    write(source, train__a="one")
    store.upload(source, "over", overwrite=True, show_progress=False)
    second = Dataset.File.from_files((store, "over/**/a")).register(platform.workspace, "written over", create_new_version=True)
    inputs = [
        Dataset.get_by_name(platform.workspace, "written over", version=1).as_named_input("old").as_mount(),
        second.as_named_input("new").as_download("here/new"),
        first.filter(first.file_metadata["Size"] == 1).skip(1).take(1).as_named_input("part").as_mount(str(tmp_path / "absolute")),
        first.as_named_input("definition"),
    ]
    inputs[3] = type(inputs[3])("definition", first, mode="direct")
    run = platform.submit(tmp_path / "code", LIST_INPUTS.replace("open(file).read()", "open(file).read()[:200]"), pool, inputs=inputs)
    found = outcome(run, tmp_path)["inputs"]

    assert first.to_path() == ["/train/a", "/train/b", "/test/c"]
    assert found["old"]["files"] == {"train/a": "1", "train/b": "2", "test/c": "3"}
    assert not any(found["old"]["writable"])
    assert found["new"]["path"].endswith("/here/new/train/a") and found["new"]["files"] == {".": "one"}
    assert found["new"]["writable"] == [True]
    assert found["part"]["path"] == f"{tmp_path}/absolute/train/b" and found["part"]["files"] == {".": "2"}
    assert not (tmp_path / "absolute").is_symlink()
    assert '"written over"' in found["definition"]["files"]["."]
    assert len(set(found["old"]["variables"])) == 1
    assert [version.dataset + str(version.version) for version in run._message.spec.inputs] == [
        "written over1",
        "written over2",
        "written over1",
        "written over1",
    ]


def test_what_was_left_out_of_a_version_is_kept_in_its_definition_and_a_name_can_be_given_up(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINYARD_CONFIG", str(platform.layout.config))
    source = write(tmp_path / "source", **{f"file{number}": str(number) for number in range(20)})
    whole = Dataset.File.from_files(str(source)).register(platform.workspace, "split in two", tags={"kind": "numbers"})

    first, rest = whole.random_split(0.7, seed=3)
    kept = first.register(platform.workspace, "first part")
    again = Dataset.get_by_id(platform.workspace, kept.id)
    folder = Path(again.download(str(tmp_path / "down"))[0]).parent
    with rest.mount() as mounted:
        lent = sorted(os.listdir(mounted.mount_point))
    kept.unregister_all_versions()

    assert sorted(os.listdir(folder)) + lent != lent and sorted([*os.listdir(folder), *lent]) == sorted(os.listdir(source))
    assert again.steps == ["random_split(0.7, seed=3): the first part"]
    assert "first part" not in platform.workspace.datasets and whole.name in platform.workspace.datasets
    with pytest.raises(UserErrorException, match="no dataset 'first part'"):
        Dataset.get_by_name(platform.workspace, "first part")
    assert first.register(platform.workspace, "first part").version == 2


def test_datastores_are_named_places_that_refuse_odd_paths(platform: Platform, tmp_path: Path) -> None:
    mine = Datastore.register_azure_blob_container(platform.workspace, "mine", "container", "account")
    write(tmp_path / "source", a__b="b", **{"-x y": "dash"})

    reference = mine.upload(tmp_path / "source", "place")
    (tmp_path / "source" / "back\\slash").write_text("x")
    with pytest.raises(UserErrorException, match="no safe relative path"):
        mine.upload(tmp_path / "source", "place")
    number = mine.download(str(tmp_path / "down"), prefix="place/a")
    with pytest.raises(UserErrorException, match="nothing at 'plac'"):
        mine.download(str(tmp_path / "down"), prefix="plac")
    with pytest.raises(UserErrorException, match=r"has no file 'place/\*\.gz'; it has: place/-x y, place/a/b"):
        Dataset.File.from_files((mine, "place/*.gz"))
    Datastore(platform.workspace, "mine").unregister()

    assert str(reference) == "$AZUREML_DATAREFERENCE_place"
    assert mine.list_files() == ["place/-x y", "place/a/b"]
    assert number == 1 and (tmp_path / "down/place/a/b").read_text() == "b"
    assert set(platform.workspace.datastores) >= {"workspaceblobstore", "workspaceartifactstore"}
    assert "mine" not in platform.workspace.datastores


def test_ten_thousand_outputs_are_kept_registered_and_mounted_by_the_next_run(platform: Platform, tmp_path: Path) -> None:
    pool = platform.pool("data").name
    script = """
import os
os.makedirs("outputs/model/deep", exist_ok=True)
for number in range(10_000):
    open(f"outputs/many/{number}" if os.makedirs("outputs/many", exist_ok=True) is None else "", "w").write(str(number))
for name in ("-1.index", "a b", "\\u00fc"):
    open("outputs/model/deep/" + name, "w").write(name)
raise SystemExit(3)
"""
    run = platform.submit(tmp_path / "code", script, pool)
    run.wait_for_completion(raise_on_error=False)
    names = run.get_file_names()
    run.download_files("outputs/model/", str(tmp_path / "down"), append_prefix=False)
    model = Model  # registered by path, from a run that failed
    version = run.register_model("ten-thousand", "outputs/model")
    resumed = run._get_outputs_datapath().create_data_reference("resume")
    listed = "import os, sys, json; print(len(os.listdir(sys.argv[2] + '/many')))"
    next_run = platform.submit(tmp_path / "next", listed, pool, script_params={"--from": resumed._to_input("resume")})
    next_run.wait_for_completion()
    next_run.download_file("azureml-logs/70_driver_log.txt", str(tmp_path / "log"))

    assert run.get_status() == "Failed" and sum(name.startswith("outputs/") for name in names) == 10_003
    assert isinstance(version, model) and version.version == 1
    assert sorted(path.name for path in (tmp_path / "down/deep").iterdir()) == ["-1.index", "a b", "ü"]
    assert (tmp_path / "log").read_text() == "10000\n"


def test_a_snapshot_of_many_odd_files_runs_and_is_restored(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_SNAPSHOT_MAX_FILES", "20000")
    code = write(tmp_path / "code", **{f"data__{number}.txt": str(number) for number in range(10_000)})
    write(code, **{"-dash": "1", "with space": "2", "u\u0308": "3"})
    with (code / "big.bin").open("wb") as big:
        big.truncate(250_000_000)
    (code / "empty" / "folder").mkdir(parents=True)
    (code / "link").symlink_to(code / "-dash")
    script = "import os; print(len(os.listdir('data')), os.path.isdir('empty/folder'), open('link').read(), open('\\u00fc').read(), os.path.getsize('big.bin'))"

    run = platform.submit(code, script, platform.pool("data").name)
    run.wait_for_completion()
    run.download_file("azureml-logs/70_driver_log.txt", str(tmp_path / "log"))
    restored = run.restore_snapshot(str(tmp_path / "restored"))

    assert (tmp_path / "log").read_text() == "10000 True 1 3 250000000\n"
    assert sorted(os.listdir(restored)) == ["-dash", "big.bin", "data", "empty", "link", "train.py", "with space", "\u00fc"]
    assert len(os.listdir(tmp_path / "restored/data")) == 10_000
