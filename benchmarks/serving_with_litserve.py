"""Runs in LitServe's own environment: `python serving_with_litserve.py PORT MODEL`, one worker, its JSON."""

import sys
from typing import Any

import litserve
import serving_session
from fastapi import Request


class Perceptron(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, folder: str) -> None:
        super().__init__(api_path="/v2/models/mlp/infer")
        self._folder = folder

    def setup(self, device: str) -> None:
        self._call = serving_session.load(self._folder)

    def decode_request(self, request: Request) -> Any:
        """LitServe has read the JSON; by the type it knows that no model of pydantic's is meant."""
        return request["inputs"]  # type: ignore[index]

    def predict(self, x: Any) -> Any:
        return serving_session.answer(self._call, x)

    def encode_response(self, output: Any) -> Any:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Perceptron(sys.argv[2]), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
