"""Versions and labels change under load from a tool that others wrote, and not one request fails. h2load: HTTP/1.1, and gRPC's HTTP/2."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from google.protobuf import text_format

from tests.component.serving.conftest import WIRE, Running, TensorFlow, predict_request, serving, tensor
from tests.component.serving.test_server_models import until

H2LOAD = shutil.which("h2load")
pytestmark = [pytest.mark.component, pytest.mark.skipif(H2LOAD is None, reason="no h2load here: apt-get install nghttp2-client")]
_REQUESTS = 500
_OTHERS = re.compile(r':tensorflow:serving:request_count\{model_name="half",status="(?!OK")')


def _load(target: str, body: Path, *more: str) -> str:
    """What h2load counted."""
    command = [H2LOAD or "", "-n", str(_REQUESTS), "-c", "4", "-d", str(body), target, *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _reload(server: Running, root: Path, versions: Sequence[int], label: int) -> None:
    wanted = " ".join(f"versions: {version}" for version in versions)
    text = (
        f'config {{ model_config_list {{ config {{ name: "half" base_path: "{root}" model_platform: "tensorflow" '
        f'model_version_policy {{ specific {{ {wanted} }} }} version_labels {{ key: "stable" value: {label} }} }} }} }}'
    )
    request = text_format.Parse(text, WIRE.ReloadConfigRequest())
    server.rpc("/tensorflow.serving.ModelService/HandleReloadConfigRequest", request.SerializeToString(), 90)


def _is(server: Running, states: dict[str, str]) -> Callable[[], bool]:
    def look() -> bool:
        told = httpx.get(f"{server.rest}/v1/models/half", timeout=30).json()["model_version_status"]
        found = {it["version"]: it["state"] for it in told}
        return all(found.get(version) == state for version, state in states.items())

    return look


def test_rollouts_rollbacks_and_labels_that_move_fail_no_request(tensorflow: TensorFlow, tmp_path: Path) -> None:
    root, over = tmp_path / "half", threading.Event()
    for what, version in (("half", 1), ("half-3", 2)):
        shutil.copytree(tensorflow.models / what / "model", root / str(version))
    listed = tmp_path / "models.config"
    listed.write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{root}" model_platform: "tensorflow" '
        f'model_version_policy {{ specific {{ versions: 1 }} }} version_labels {{ key: "stable" value: 1 }} }} }}'
    )
    json, framed = tmp_path / "body.json", tmp_path / "body.grpc"
    json.write_text('{"instances": [1.0]}')
    message = predict_request({"x": tensor(1, [1], float_val=[1.0])}).SerializeToString()
    framed.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)

    def again_and_again(target: str, body: Path, *more: str) -> list[str]:
        told = []
        while not over.is_set():
            told.append(_load(target, body, *more))
        return told

    with serving(tensorflow.python, f"--model_config_file={listed}") as server, ThreadPoolExecutor(3) as pool:
        by_rest = "--h1", "-H", "content-type: application/json"
        by_grpc = "-H", "content-type: application/grpc", "-H", "te: trailers"
        loads = [
            pool.submit(again_and_again, f"{server.rest}/v1/models/half:predict", json, *by_rest),
            pool.submit(again_and_again, f"{server.rest}/v1/models/half/labels/stable:predict", json, *by_rest),
            pool.submit(again_and_again, f"http://{server.grpc_address}/tensorflow.serving.PredictionService/Predict", framed, *by_grpc),
        ]
        try:
            for _ in range(3):
                _reload(server, root, [1, 2], 1)
                until(_is(server, {"1": "AVAILABLE", "2": "AVAILABLE"}))
                _reload(server, root, [1, 2], 2)
                _reload(server, root, [2], 2)
                until(_is(server, {"1": "END", "2": "AVAILABLE"}))
                _reload(server, root, [1, 2], 2)
                until(_is(server, {"1": "AVAILABLE", "2": "AVAILABLE"}))
                _reload(server, root, [1, 2], 1)
                _reload(server, root, [1], 1)
                until(_is(server, {"1": "AVAILABLE", "2": "END"}))
        finally:
            over.set()
        told = [run for load in loads for run in load.result(120)]
        counted = httpx.get(f"{server.rest}/metrics", timeout=30).text

    assert len(told) >= len(loads)
    for run in told:
        assert f"{_REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in run
        assert f"status codes: {_REQUESTS} 2xx" in run
    # HTTP's status says nothing of gRPC's: the server counts what it answered.
    assert f'model_name="half",status="OK"}} {len(told) * _REQUESTS}' in counted
    assert not _OTHERS.search(counted)
