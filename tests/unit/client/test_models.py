"""Models from the client's side."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.unit.client.platform import Platform, refuse
from trainyard import Dataset, Model, ModelNotFoundException, ResourceConfiguration, TrainyardException, UserErrorException
from trainyard.model.v1 import model_pb2

CONTENTS = {"saved_model.pb": b"graph", "variables/v.index": b"weights", "-leading dash": b"", "ünïcode": b"u"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for path, content in CONTENTS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def register(platform: Platform, path: Path, name: str = "digits", **options: Any) -> Model:
    return Model.register(platform.workspace(), path, name, show_progress=False, **options)


def test_a_folder_is_sent_under_the_digest_of_the_whole_with_every_files_digest(platform: Platform, folder: Path) -> None:
    model = register(platform, folder, tags={"a": "b"}, properties={"p": 1}, description="d", model_framework=Model.Framework.TENSORFLOW)

    request = platform.last(model_pb2.RegisterModelVersion)
    lines = "".join(f"model/{path}\0{hashlib.sha256(CONTENTS[path]).hexdigest()}\n" for path in sorted(CONTENTS))
    whole = hashlib.sha256(lines.encode()).hexdigest()
    assert {file.path: file.object_key for file in request.files.files} == {
        f"model/{path}": f"uploads/models/{whole}/model/{path}" for path in CONTENTS
    }
    assert platform.objects.kept == {f"uploads/models/{whole}/model/{path}": content for path, content in CONTENTS.items()}
    assert (request.run_id, request.path, dict(request.tags), dict(request.properties)) == ("", "", {"a": "b"}, {"p": "1"})
    assert (model.id, model.run_id, model.run, model.description) == ("digits:1", "", None, "d")


def test_one_file_is_a_model_too(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"w")

    register(platform, tmp_path / "weights.bin")

    assert [file.path for file in platform.last(model_pb2.RegisterModelVersion).files.files] == ["weights.bin"]


def test_equal_bytes_are_not_sent_twice(platform: Platform, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(platform, folder)
    sent: list[str] = []
    monkeypatch.setattr(type(platform.objects), "put_file", lambda self, key, path: sent.append(key))

    assert register(platform, folder).version == 2
    assert sent == []


def test_a_poisoned_object_under_the_digest_is_sent_again_once(platform: Platform, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.client import platform as fakes

    real = fakes._Models.RegisterModelVersion

    def reading(self: Any, request: Any, context: Any) -> Any:
        if any(hashlib.sha256(self.platform.objects.kept[it.object_key]).hexdigest() != it.sha256 for it in request.files.files):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "ArtifactMissing", "other bytes")
        return real(self, request, context)

    monkeypatch.setattr(fakes._Models, "RegisterModelVersion", reading)
    with fakes.running() as other:
        register(other, folder)
        key = next(key for key in other.objects.kept if key.endswith("saved_model.pb"))
        other.objects.put_bytes(key, b"GRAPH")

        assert register(other, folder).version == 2
        assert other.objects.get_bytes(key) == b"graph"


def test_what_no_store_can_keep_is_refused_before_anything_is_sent(platform: Platform, folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(UserErrorException, match="leads out of"):
        register(platform, folder)
    (folder / "link").unlink()
    (folder / "loop").symlink_to(folder)
    with pytest.raises(UserErrorException, match="link to a folder"):
        register(platform, folder)
    (folder / "loop").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserErrorException, match="no regular file"):
        register(platform, folder)
    (folder / "pipe").unlink()
    (folder / "dangling").symlink_to("gone")
    with pytest.raises(UserErrorException, match="cannot be read"):
        register(platform, folder)
    (folder / "dangling").unlink()
    (folder / "new\nline").write_bytes(b"")
    with pytest.raises(UserErrorException, match="cannot hold a file named"):
        register(platform, folder)
    (tmp_path / "empty").mkdir()
    for path, said in ((tmp_path / "empty", "without files"), (tmp_path / "nowhere", "does not exist")):
        with pytest.raises(UserErrorException, match=said):
            register(platform, path)

    assert platform.objects.kept == {}
    assert platform.asked == []


@pytest.mark.security
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("weights.h5", b"", "is HDF5"),
        ("model.pkl", b"", "is a pickle"),
        ("more.bin", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x01w\x94.", "is a pickle"),
        ("assets", b"PK\x03\x04", "is an archive"),
        ("whole.keras", b"PK\x03\x04", "no Keras archive"),
    ],
)
def test_what_no_model_may_hold_is_refused_before_anything_is_sent(
    platform: Platform, folder: Path, name: str, content: bytes, said: str
) -> None:
    (folder / name).write_bytes(content)

    with pytest.raises(UserErrorException, match=said) as caught:
        register(platform, folder)

    assert (caught.value.code, caught.value.target) == ("ModelRefused", str(folder / name))
    assert platform.objects.kept == {} and platform.asked == []


def test_more_files_than_one_event_can_list_are_refused_before_anything_is_sent(platform: Platform, tmp_path: Path) -> None:
    deep = tmp_path / "model" / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    for number in range(1100):
        (deep / f"{number}").write_bytes(b"")

    with pytest.raises(UserErrorException, match="1100 files"):
        register(platform, tmp_path / "model")
    assert platform.objects.kept == {}


def test_a_link_within_the_folder_is_sent_as_the_file_it_leads_to(platform: Platform, folder: Path) -> None:
    (folder / "also").symlink_to("saved_model.pb")

    register(platform, folder)

    assert [content for key, content in platform.objects.kept.items() if key.endswith("/also")] == [b"graph"]


def test_datasets_are_named_with_their_purpose_and_unregistered_ones_refused(platform: Platform, folder: Path) -> None:
    workspace = platform.workspace()
    mnist = Dataset.File.from_files("http://host/a").register(workspace, "mnist")
    sample = Dataset.File.from_files("http://host/b").register(workspace, "sample")

    model = register(platform, folder, datasets=[("training", mnist), sample], sample_input_dataset=sample)

    assert sorted((it.name, it.purpose) for it in platform.last(model_pb2.RegisterModelVersion).datasets) == [
        ("mnist", "training"), ("sample", ""), ("sample", "sample_input"),
    ]  # fmt: skip
    assert model.serialize()["sampleInputDatasetId"] == "sample:1"
    assert [it.name for it in model.datasets["training"]] == ["mnist"]
    with pytest.raises(UserErrorException, match="no registered dataset"):
        register(platform, folder, datasets=[Dataset.File.from_files("http://host/c")])


def test_models_are_found_by_id_version_tags_properties_and_framework(platform: Platform, folder: Path) -> None:
    workspace = platform.workspace()
    register(platform, folder, tags={"stage": "old"}, properties={"p": "1"})
    register(platform, folder, tags={"stage": "new"}, model_framework="TensorFlow")
    register(platform, folder, "words")

    assert Model(workspace, "digits").version == 2
    assert Model(workspace, id="digits:1").version == Model(workspace, "digits", version=1).version == 1
    assert Model(workspace, "digits", tags=[["stage", "old"]]).version == 1
    assert Model(workspace, "digits", properties={"p": "1"}).version == 1
    assert [it.id for it in Model.list(workspace)] == ["words:1", "digits:2", "digits:1"]
    assert [it.id for it in Model.list(workspace, latest=True)] == ["words:1", "digits:2"]
    assert [it.id for it in Model.list(workspace, tags=["stage"], latest=True)] == ["digits:2"]
    assert [it.id for it in Model.list(workspace, model_framework="TensorFlow")] == ["digits:2"]
    assert sorted(workspace.models) == ["digits", "words"]
    with pytest.raises(ModelNotFoundException):
        Model(workspace, "digits", tags={"stage": "lost"})
    for wrong in ("digits", "digits:x", ":1", "digits:0", "digits:-1", "digits:²"):
        with pytest.raises(UserErrorException):
            Model(workspace, id=wrong)


def test_a_download_is_checked_and_does_not_write_over_what_is_there(platform: Platform, folder: Path, tmp_path: Path) -> None:
    model = register(platform, folder)

    top = Path(model.download(str(tmp_path / "got")))

    assert {path: (top / path).read_bytes() for path in CONTENTS} == CONTENTS
    with pytest.raises(UserErrorException, match="is there already"):
        model.download(str(tmp_path / "got"))
    (top / "saved_model.pb").write_bytes(b"local")
    assert model.download(str(tmp_path / "got"), exist_ok=True) == str(top)
    assert (top / "saved_model.pb").read_bytes() == b"graph"
    platform.objects.put_bytes(next(key for key in platform.objects.kept if key.endswith("saved_model.pb")), b"GRAPH")
    with pytest.raises(TrainyardException, match="is not what was uploaded"):
        model.download(str(tmp_path / "other"))


def test_a_client_finds_a_model_by_downloading_it_once(
    platform: Platform, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    register(platform, folder)

    path = Model.get_model_path("digits", _workspace=platform.workspace())

    assert path == "azureml-models/digits/1/model"
    assert Model.get_model_path("digits") == path
    with pytest.raises(ModelNotFoundException, match="it has: 1"):
        Model.get_model_path("digits", version=2)
    with pytest.raises(ModelNotFoundException, match="no model name"):
        Model.get_model_path("../../etc")


def test_a_deployment_finds_its_model_where_the_server_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one" / "model").mkdir(parents=True)
    (tmp_path / "many" / "digits" / "2" / "model").mkdir(parents=True)
    (tmp_path / "many" / "digits" / "10" / "weights").mkdir(parents=True)

    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "one"))
    assert Model.get_model_path("digits") == str(tmp_path / "one" / "model")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "many"))
    assert Model.get_model_path("digits") == str(tmp_path / "many" / "digits" / "10" / "weights")
    assert Model.get_model_path("digits", 2) == str(tmp_path / "many" / "digits" / "2" / "model")


def test_what_is_said_of_a_version_changes_and_is_shown(platform: Platform, folder: Path) -> None:
    mnist = Dataset.File.from_files("http://host/a").register(platform.workspace(), "mnist")
    model = register(platform, folder, tags={"a": "b", "c": "d"}, properties={"p": "1"})

    model.add_tags({"n": "1"})
    model.remove_tags("a")
    model.add_properties({"q": "2"})
    model.add_dataset_references([("training", mnist)])
    assert (model.tags, model.properties) == ({"c": "d", "n": "1"}, {"p": "1", "q": "2"})
    assert [it.name for it in model.datasets["training"]] == ["mnist"]

    model.update(tags={"x": "y"}, description="e", resource_configuration=ResourceConfiguration(1), sample_input_dataset=mnist)
    request = platform.last(model_pb2.UpdateModelVersion)
    assert (dict(request.tags), sorted(request.remove_tags), request.digest) == ({"x": "y"}, ["c", "n"], model.digest)
    assert (model.tags, model.description, model.resource_configuration) == ({"x": "y"}, "e", ResourceConfiguration(1))
    assert model.sample_input_dataset is not None and model.sample_input_dataset.name == "mnist"
    assert model.sample_output_dataset is None

    model.update_tags_properties(add_tags={"z": "1"}, remove_tags=["x"], add_properties={"r": "3"})
    assert (model.tags, model.properties["r"]) == ({"z": "1"}, "3")
    with pytest.raises(UserErrorException, match="is a dict"):
        model.add_tags(["a"])  # type: ignore[arg-type]


def test_an_alias_is_named_wherever_a_version_is(platform: Platform, folder: Path) -> None:
    workspace = platform.workspace()
    first, second = register(platform, folder), register(platform, folder)

    first.set_alias("champion")
    assert Model(workspace, "digits@champion").version == Model(workspace, id="digits@champion").version == 1
    assert Model(workspace, "digits:2").version == 2
    second.set_alias("champion")
    assert (Model(workspace, "digits@champion").version, second.aliases) == (2, ["champion"])
    with pytest.raises(UserErrorException, match="does not point at digits:1; its aliases are: none"):
        first.remove_alias("champion")
    second.remove_alias("champion")
    with pytest.raises(ModelNotFoundException):
        Model(workspace, "digits@champion")
    for wrong in ("digits@", "@champion", "digits@champion:2"):
        with pytest.raises(UserErrorException, match="no model id"):
            Model(workspace, wrong)


def test_a_stage_is_named_in_any_case_and_lists_can_be_of_one(platform: Platform, folder: Path) -> None:
    first, _ = register(platform, folder), register(platform, folder)

    first.set_stage("production")

    assert first.stage == "Production"
    assert [it.version for it in Model.list(platform.workspace(), "digits", stage="Production")] == [1]
    with pytest.raises(UserErrorException, match="there are: Development, Staging, Production, Archived"):
        first.set_stage("best")


def test_a_version_is_deleted_by_its_number_and_with_its_aliases_if_asked(platform: Platform, folder: Path) -> None:
    register(platform, folder).delete(with_aliases=True)

    request = platform.last(model_pb2.DeleteModelVersion)
    assert (request.model, request.version, request.with_aliases) == ("digits", 1, True)


def test_what_makes_no_sense_here_says_what_to_do_instead(platform: Platform, folder: Path) -> None:
    model = register(platform, folder)

    with pytest.raises(UserErrorException) as packaging:
        Model.package(model.workspace, [model])
    with pytest.raises(UserErrorException) as profiling:
        Model.profile(model.workspace, "p", [model], None)
    for caught in (packaging, profiling):
        assert caught.value.code == "NotSupported" and caught.value.hint


def test_a_model_is_serialized_in_azures_shape(platform: Platform, folder: Path) -> None:
    model = register(
        platform, folder, resource_configuration=ResourceConfiguration(cpu=0.5, memory_in_gb=1.5), model_framework_version="2.15"
    )

    shown = model.serialize()

    assert (shown["id"], shown["name"], shown["version"], shown["frameworkVersion"]) == ("digits:1", "digits", 1, "2.15")
    assert shown["resourceRequirements"] == {"cpu": 0.5, "memoryInGB": 1.5, "gpu": None}
    assert shown["createdTime"] == model.created_time.isoformat() == "2026-01-01T00:00:00+00:00"
    assert shown["url"] == model.url == f"aml://asset/{model.digest}"
    assert model.created_by == {"userName": "local"}
    assert shown["files"]["model/saved_model.pb"] == 5


def test_a_model_that_is_not_there_is_caught_as_azures_scripts_catch_it() -> None:
    from trainyard import ModelNotFoundException, WebserviceException

    assert issubclass(ModelNotFoundException, WebserviceException)
    assert ModelNotFoundException("no").code == "ModelNotFound"
    assert ModelNotFoundException("no").message == ModelNotFoundException("ModelNotFound: no").message == "ModelNotFound: no"
