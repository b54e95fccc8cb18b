from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from trainyard import (
    AmlCompute,
    ComputeTarget,
    Dataset,
    Environment,
    Estimator,
    Experiment,
    Model,
    TensorFlow,
    TrainingException,
    TrainyardException,
    UserErrorException,
)
from trainyard._datapath import DataPath, DataReference
from trainyard._dataset import _from_message
from trainyard._datastore import Datastore
from trainyard._inference import encode, predict
from trainyard._resource_configuration import ResourceConfiguration
from trainyard._run import Run
from trainyard._texts import texts
from trainyard._webservice import Webservice, _plain
from trainyard._workspace import Workspace
from trainyard.dataset.v1 import dataset_pb2
from trainyard.endpoint.v1 import endpoint_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

NOWHERE = Workspace.from_dict({"workspace_name": "w", "trainyard": {"services": {}}})
LIVE = Webservice(
    NOWHERE, "digits", _message=endpoint_pb2.Endpoint(endpoint="digits", scoring_uri="http://127.0.0.1:1/v1/models/m:predict")
)
DIGITS = Dataset.File.from_files("http://host:8/a.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pip_packages", "pandas"),
        ("pip_packages", [None]),
        ("inputs", [DIGITS]),
        ("inputs", DIGITS.as_named_input("digits")),
        ("script_params", ["--rate", 0.1]),
        ("script_params", "--rate 0.1"),
        ("environment_variables", ["A"]),
        ("source_directory", None),
        ("max_run_duration_seconds", "60"),
        ("max_run_duration_seconds", float("inf")),
    ],
)
def test_an_option_of_the_wrong_type_is_named_with_what_it_should_be(folder: Path, option: str, value: Any) -> None:
    given = {"source_directory": str(folder), "entry_script": "train.py", "compute_target": "pool", option: value}

    with pytest.raises(TrainingException, match=option) as refused:
        Estimator(**given)

    assert refused.value.target == option


def test_a_version_given_as_a_number_is_refused_because_its_last_zero_is_lost(folder: Path) -> None:
    with pytest.raises(TrainingException, match="2.10 would be 2.1") as refused:
        TensorFlow(str(folder), entry_script="train.py", compute_target="pool", framework_version=2.15)  # type: ignore[arg-type]

    assert "framework_version='2.15'" in refused.value.hint


def test_a_compute_target_that_is_none_is_named(folder: Path) -> None:
    estimator = Estimator(str(folder), entry_script="train.py", compute_target=5)  # type: ignore[arg-type]

    with pytest.raises(TrainingException, match="compute_target is a ComputeTarget or the name of one, not 5"):
        estimator._to_spec()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: Experiment(NOWHERE, None),  # type: ignore[arg-type]
        lambda: Experiment(NOWHERE, "e").submit(None),  # type: ignore[arg-type]
        lambda: Dataset.File.from_files(None),  # type: ignore[arg-type]
        lambda: Dataset.get_by_name(NOWHERE, "digits", "newest"),
        lambda: Dataset.get_by_name(NOWHERE, "digits", -1),
        lambda: DIGITS.as_named_input(None),  # type: ignore[arg-type]
        lambda: Model(NOWHERE, id="tf-dnn-mnist"),
        lambda: Model.deploy(NOWHERE, "service", None),  # type: ignore[arg-type]
        lambda: _plain(object()),
        lambda: AmlCompute.provisioning_configuration("LOCAL", max_nodes="4"),  # type: ignore[arg-type]
        lambda: AmlCompute.provisioning_configuration("LOCAL", max_nodes=1.5),  # type: ignore[arg-type]
        lambda: AmlCompute.provisioning_configuration("LOCAL", min_nodes=None),  # type: ignore[arg-type]
        lambda: ComputeTarget.create(NOWHERE, "pool", None),  # type: ignore[arg-type]
        lambda: ResourceConfiguration("1"),  # type: ignore[arg-type]
        lambda: ResourceConfiguration(cpu=-1),
        lambda: ResourceConfiguration(memory_in_gb=float("nan")),
        lambda: ResourceConfiguration(gpu=0.5),  # type: ignore[arg-type]
        lambda: LIVE.predict(None),  # type: ignore[arg-type]
        lambda: LIVE.get_logs(-1),
        lambda: encode([None]),
        lambda: texts("tags", ["a"]),
        lambda: Run("run_1", Experiment(NOWHERE, "e")),  # type: ignore[arg-type]
        lambda: Run(NOWHERE, "run_1"),  # type: ignore[arg-type]
        lambda: Run(Experiment(NOWHERE, "e"), 1),  # type: ignore[arg-type]
        lambda: Run.get("run_1", NOWHERE),  # type: ignore[arg-type]
        lambda: Run.get(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Experiment("e", NOWHERE),  # type: ignore[arg-type]
        lambda: Environment(1),  # type: ignore[arg-type]
        lambda: Environment.get(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Dataset.get_by_id(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Model(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Model(NOWHERE, id=1),  # type: ignore[arg-type]
        lambda: Model.list(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Webservice(NOWHERE, 1),  # type: ignore[arg-type]
        lambda: Webservice("digits", NOWHERE),  # type: ignore[arg-type]
        lambda: Datastore("mine", NOWHERE),  # type: ignore[arg-type]
        lambda: Datastore.get_default("mine"),  # type: ignore[arg-type]
        lambda: DataReference("mine"),  # type: ignore[arg-type]
        lambda: DataPath("mine", "a/b"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_is_a_typed_error_and_never_pythons_own(mistake: Callable[[], object]) -> None:
    with pytest.raises(TrainyardException):
        mistake()


def test_tags_that_are_no_dict_are_refused_before_anything_is_sent(folder: Path) -> None:
    estimator = Estimator(str(folder), entry_script="train.py", compute_target="pool")

    with pytest.raises(UserErrorException, match="tags is a dict"):
        Experiment(NOWHERE, "e").submit(estimator, tags=["a"])  # type: ignore[arg-type]


def test_an_array_goes_into_a_json_body_as_nested_lists() -> None:
    assert _plain(numpy.zeros((1, 2))) == [[0.0, 0.0]]


def test_a_prediction_where_nobody_listens_says_how_to_find_the_endpoint_anew() -> None:
    with pytest.raises(TrainyardException, match="Nothing listens at 127.0.0.1:1") as refused:
        predict("127.0.0.1:1", "model", {"images": [1.0]}, "serving_default", timeout=0.2)

    assert "update_deployment_state" in refused.value.hint


def test_one_registered_dataset_with_a_wrong_url_does_not_hide_the_others() -> None:
    listed = [
        dataset_pb2.Dataset(name="forged", version=1, files=[dataset_pb2.SourceFile(url="file:///etc/passwd", path="x")]),
        dataset_pb2.Dataset(name="digits", version=1, files=[dataset_pb2.SourceFile(url="http://host:8/a.gz", path="a.gz")]),
    ]

    assert [_from_message(message).name for message in listed] == ["forged", "digits"]


def test_a_tag_that_is_a_number_is_told_as_its_text() -> None:
    assert texts("tags", {"epochs": 3, 4: 0.5, "on": True, "name": "x"}) == {"epochs": "3", "4": "0.5", "on": "True", "name": "x"}
    assert texts("tags", None) == {}


def test_the_metrics_of_a_run_that_names_no_time_are_looked_for_from_the_beginning() -> None:
    run = Run(Experiment(NOWHERE, "e"), "r", _message=job_pb2.Run(run_id="r", spec=spec_pb2.RunSpec()))

    assert run._since().timestamp() == 0


def test_a_run_asked_for_in_the_wrong_order_is_told_the_right_one() -> None:
    with pytest.raises(UserErrorException, match="An experiment belongs here, not 'run_1'") as caught:
        Run("run_1", Experiment(NOWHERE, "e"))  # type: ignore[arg-type]

    assert "Run(experiment, run_id)" in caught.value.hint and "Run.get(workspace, run_id)" in caught.value.hint


@pytest.mark.parametrize("wrong", ["mine", None])
@pytest.mark.parametrize(
    "ask",
    [
        lambda wrong: Experiment(wrong, "mine"),
        lambda wrong: ComputeTarget(wrong, NOWHERE),  # type: ignore[arg-type]
        lambda wrong: ComputeTarget.list(wrong),
        lambda wrong: Dataset.get_by_name(wrong, NOWHERE),  # type: ignore[arg-type]
        lambda wrong: DIGITS.register(wrong, "digits"),
        lambda wrong: Environment.get(wrong, NOWHERE),  # type: ignore[arg-type]
        lambda wrong: Environment("mine").register(wrong),
        lambda wrong: Model(wrong, "digits"),
        lambda wrong: Model.list(wrong),
        lambda wrong: Webservice(wrong, "digits"),
    ],
)
def test_a_name_or_nothing_in_the_place_of_the_workspace_is_told(ask: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises(UserErrorException, match="A workspace belongs here") as caught:
        ask(wrong)

    assert caught.value.target == "workspace"
    assert "Workspace.from_config()" in caught.value.hint
