"""Resources, turns and second tries: what a run may ask for beside its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard import Estimator, ResourceConfiguration, Run, RunConfiguration, ScriptRunConfig, TrainingException, UserErrorException
from trainyard.job.v1 import job_pb2, spec_pb2
from trainyard.job.v1.spec_pb2 import RunSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


def submitted(folder: Path, **options: Any) -> RunSpec:
    return ScriptRunConfig(folder, "train.py", compute_target="pool", **options)._to_spec()


OPTIONS: dict[str, Any] = {
    "resources": ResourceConfiguration(cpu=2, memory_in_gb=0.5, gpu=1),
    "priority": -5,
    "user": "ann",
    "max_restarts": 3,
    "checkpoint_folder": "./outputs/checkpoints/",
    "labels": {"gpu.name": "NVIDIA H100", "zone": "a"},
    "spread": True,
}


def test_both_eras_take_the_same_options_and_say_the_same(folder: Path) -> None:
    spec = submitted(folder, **OPTIONS)
    estimator = Estimator(str(folder), entry_script="train.py", compute_target="pool", **OPTIONS)._to_spec()

    assert (spec.resources.cpus, spec.resources.memory_bytes, spec.resources.gpus, spec.use_gpu) == (2, 1 << 29, 1, True)
    assert (spec.priority, spec.user, spec.max_restarts, spec.spread) == (-5, "ann", 3, spec_pb2.SPREAD_SPREAD)
    assert (spec.checkpoint_folder, list(spec.labels)) == ("outputs/checkpoints", ["gpu.name=NVIDIA H100", "zone=a"])
    for field in ("resources", "priority", "user", "max_restarts", "checkpoint_folder", "labels", "spread"):
        assert getattr(estimator, field) == getattr(spec, field), field


def test_what_is_not_said_is_left_to_the_platform(folder: Path) -> None:
    spec = submitted(folder)

    assert not spec.HasField("resources")
    assert (spec.priority, spec.max_restarts, spec.checkpoint_folder, list(spec.labels), spec.spread) == (0, 0, "", [], 0)


def test_a_run_configuration_holds_them_as_attributes_and_must_not_be_contradicted(folder: Path) -> None:
    configuration = RunConfiguration("train.py")
    configuration.priority, configuration.labels = 7, ["ssd"]

    spec = ScriptRunConfig(folder, run_config=configuration, priority=7)._to_spec()

    assert (spec.priority, list(spec.labels)) == (7, ["ssd"])
    with pytest.raises(TrainingException, match="7 and 8"):
        ScriptRunConfig(folder, run_config=configuration, priority=8)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("resources", {"cpu": 2}),
        ("resources", ResourceConfiguration()),
        ("resources", ResourceConfiguration(gpu=0)),
        ("priority", 1001),
        ("priority", 1.5),
        ("priority", True),
        ("max_restarts", -1),
        ("max_restarts", 101),
        ("user", ""),
        ("user", "a\nb"),
        ("user", 3),
        ("checkpoint_folder", "../elsewhere"),
        ("checkpoint_folder", "/tmp/x"),
        ("checkpoint_folder", ""),
        ("checkpoint_folder", 3),
        ("labels", "ssd"),
        ("labels", [""]),
        ("labels", ["=a"]),
        ("labels", ["a\0b"]),
        ("labels", ["x"] * 21),
        ("spread", "pack"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(folder: Path, option: str, value: Any) -> None:
    with pytest.raises(TrainingException) as caught:
        submitted(folder, **{option: value})

    assert caught.value.target == option


def test_a_gpu_that_is_asked_for_and_not_taken_is_a_contradiction(folder: Path) -> None:
    estimator = Estimator(str(folder), entry_script="train.py", use_gpu=True, resources=ResourceConfiguration(cpu=1))

    with pytest.raises(TrainingException, match="use_gpu"):
        estimator._to_spec()


def test_a_run_is_resumed_by_name_and_its_script_is_told_nothing(folder: Path) -> None:
    earlier = Run.__new__(Run)
    earlier.id, earlier._message = "digits_1_ab", job_pb2.Run()

    spec = submitted(folder, resume_from=earlier)

    assert (spec.resume_from, list(spec.arguments), list(spec.inputs)) == ("digits_1_ab", [], [])
    with pytest.raises(UserErrorException, match="earlier run"):
        submitted(folder, resume_from="digits_1_ab")
