"""What a loaded model says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from services.serving.model_server import servable
from services.serving.model_server.batching import BatchingParameters
from services.serving.model_server.servable import Servable
from services.serving.model_server.signatures import Signature
from tests.unit.serving.fake_models import FLOAT, an_echo


class Echo(Servable):
    platform = "none"

    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        return list(arrays)

    def signature_defs(self) -> Mapping[str, bytes]:
        return {}


def test_a_model_that_takes_long_is_not_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servable, "_PROMPT_NS", 0)
    signature = an_echo("serving_default", FLOAT, (-1,))
    model = Echo("echo", 1, {"serving_default": signature})

    model.predict(signature, {"x": np.zeros(1, np.float32)})

    assert not model.prompt


def test_a_model_is_prompt_unless_its_calls_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servable, "_PROMPT_NS", 1 << 62)
    signature = an_echo("serving_default", FLOAT, (-1,))
    model = Echo("echo", 1, {"serving_default": signature})
    model.predict(signature, {"x": np.zeros(1, np.float32)})
    assert model.prompt

    model.batch(BatchingParameters())

    assert not model.prompt
    model.close()


def test_a_model_lets_go_of_its_files_when_it_is_closed() -> None:
    model, let_go = Echo("echo", 1, {}), []
    model.files.callback(let_go.append, "files")

    assert let_go == []
    model.close()

    assert let_go == ["files"]
