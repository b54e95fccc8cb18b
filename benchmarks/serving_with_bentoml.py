"""Runs in BentoML's own environment: `MODEL=... python -m bentoml serve serving_with_bentoml:Perceptron`, one worker, its JSON."""

import os
from typing import Any

import bentoml
import serving_session


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Perceptron:
    def __init__(self) -> None:
        self._call = serving_session.load(os.environ["MODEL"])

    @bentoml.api(route="/v2/models/mlp/infer")
    def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        return serving_session.answer(self._call, inputs)
