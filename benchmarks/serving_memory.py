"""Whether a model server gives back the memory of what it unloads: versions of one large model come, answer and go, and what is left is
counted against their weights. By V2's repository calls, on one server process; the first rounds, which fill pools for good, are not counted."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from benchmarks import serving_load
from benchmarks.report import Row
from tests.conftest import free_port

ROUNDS, WARM_UP, TRIALS = 10, 2, 3
WEIGHTS_BYTES = 64 << 20


def measure(_: Path) -> list[Row]:
    loaded, left = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serving_load.save_model(folder / "models" / "large" / "1", "large")
        for _trial in range(TRIALS):
            took, stays = _one(folder)
            loaded.append(took / WEIGHTS_BYTES)
            left.append(stays / (ROUNDS * WEIGHTS_BYTES))
    return [
        Row("memory that a server takes for a model with 64 MiB of weights, to the weights", "times", loaded),
        Row(f"what it has grown by after {ROUNDS} such models came and went, to all their weights", "ratio", left, "0"),
    ]


def _one(folder: Path) -> tuple[int, int]:
    """Bytes: that the model takes while it is there, and that are left when it came and went for some times."""
    port = free_port()
    models = folder / "list.txt"
    models.write_text(
        f'model_config_list {{ config {{ name: "large" base_path: "{folder / "models" / "large"}" model_platform: "tensorflow" }} }}'
    )
    with serving_load.model_server(folder, port, free_port(), f"--model-config-file={models}") as server:
        process = psutil.Process(server.pid)
        whole = _resident(process)
        for _ in range(WARM_UP):
            _come_and_go(port)
        before = _resident(process)
        for _ in range(ROUNDS):
            _come_and_go(port)
        left = _resident(process) - before
        return whole - _resident(process), left


def _come_and_go(port: int) -> None:
    for call, state in (("unload", "UNAVAILABLE"), ("load", "READY"), ("unload", "UNAVAILABLE")):
        _post(port, f"/v2/repository/models/large/{call}", {})
        while json.loads(_post(port, "/v2/repository/index", {}))[0]["state"] != state:
            time.sleep(0.01)
        if call == "load":
            _post(port, "/v2/models/large/infer", {"inputs": [{"name": "x", "shape": [1, 16], "datatype": "FP32", "data": [0.5] * 16}]})


def _post(port: int, path: str, body: object) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: bytes = answer.read()
    return found


def _resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
