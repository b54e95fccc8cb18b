"""How a graph is run: in the caller's thread, by a private way into the session, and without it should a TensorFlow no longer have it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.component.serving.conftest import REPO, TensorFlow

pytestmark = pytest.mark.component
INVALID = 3


@pytest.fixture(scope="module")
def looked_at(tensorflow: TensorFlow) -> Any:
    script, environment = Path(__file__).with_name("look_at_sessions.py"), {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    words = [tensorflow.python, script, tensorflow.models / "half" / "model", "--tensorflow-intra-op-parallelism=1"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bound_of_cores_leaves_operations_in_the_thread_of_the_call(looked_at: Any) -> None:
    assert looked_at["configs"][0] == [1, -1, True]


def test_a_tensorflow_without_the_quick_way_answers_the_same(looked_at: Any) -> None:
    assert looked_at["has quick"], "the quick way is gone from this TensorFlow: calls take three times as long"
    assert looked_at["slow"] == looked_at["quick"]
    half, tag, raw, total, count, positive = looked_at["slow"]
    assert half == {"y": ["<f4", "[2.5, 4.0]"]}
    assert tag == {"text": ["|O", r"[b'a\x001', b'2']"], "twice": ["<i8", "[2, 4]"]}
    assert raw == {"raw_bytes": ["|O", "[b'a']"]}
    assert (total, count) == ({"sum": ["<f4", "5.0"]}, {"n": ["<i8", "3"]})
    assert positive == {"refused": [INVALID, True]}
