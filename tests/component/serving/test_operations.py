"""What a graph may not do: the list that is gone by, held against every operation that TensorFlow itself tells of."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.graph_operations import REACHING_OUT
from services.serving.model_server.operations import STATEFUL
from tests.component.serving.conftest import REPO, TensorFlow

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def looked_at(tensorflow: TensorFlow) -> Any:
    script = Path(__file__).with_name("look_at_operations.py")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    done = subprocess.run([tensorflow.python, script, *sorted(REACHING_OUT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_operation_of_the_list_is_served_and_tensorflow_knows_them(looked_at: Any) -> None:
    assert looked_at["named and passed"] == []
    assert REACHING_OUT - set(looked_at["named"]) <= {"CalibrationStatisticsSaver", "ListSnapshotChunksDataset"}, "2.15 has not all"


def test_every_operation_that_is_told_a_place_is_refused(looked_at: Any) -> None:
    assert looked_at["placed and passed"] == []
    assert {"ReadFile", "ImmutableConst", "DebugIdentity", "GenerateVocabRemapping", "DecodeProtoV2"} <= set(looked_at["placed"])


def test_nothing_is_both_allowed_and_refused() -> None:
    assert set(STATEFUL).isdisjoint(REACHING_OUT)
