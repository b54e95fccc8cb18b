"""How long calls take while a new version takes the old one's place, against before: one server on core 0, load from core 1.

A version's folder is put beside the old one's; the server loads it, makes it ready, moves the calls over and unloads the old one. The same
is measured over gRPC and REST. `serving_takeover` measures a rollout of whole processes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import serving_load
from benchmarks.report import Row
from benchmarks.serving_batching import _request
from tests.conftest import free_port

TRIALS, AT_ONCE, REQUESTS = 3, 4, 20_000
_CALLS = {"grpc": "/tensorflow.serving.PredictionService/Predict", "json": "/v1/models/conv:predict"}


def measure(_: Path) -> list[Row]:
    serving_load.check_tools()
    before: dict[str, list[float]] = defaultdict(list)
    during: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serving_load.save_model(folder / "made")
        shutil.copytree(folder / "made", folder / "models" / "1")
        bodies = {"grpc": folder / "row.grpc", "json": folder / "row.json"}
        bodies["grpc"].write_bytes(serving_load.frame(_request()))
        bodies["json"].write_text(json.dumps({"instances": [[(number % 17) / 17 for number in range(784)]]}))
        ports = {"grpc": free_port(), "json": free_port()}
        options = ["--model-name=conv", f"--model-base-path={folder / 'models'}", "--file-system-poll-wait-seconds=0.1"]
        with serving_load.model_server(folder, ports["json"], ports["grpc"], *options):
            version = 1
            for _trial in range(TRIALS):
                for way, call in _CALLS.items():
                    url, version = f"http://127.0.0.1:{ports[way]}{call}", version + 1
                    old, new = _one(url, bodies[way], folder, version, ports["json"])
                    before[way].append(old)
                    during[way].append(new)
    names = {"grpc": "gRPC Predict", "json": "REST Predict"}
    return [row for way in _CALLS for row in rows(names[way], before[way], during[way])]


def _one(url: str, body: Path, folder: Path, version: int, rest_port: int) -> tuple[float, float]:
    """The 99th percentiles in milliseconds: before, and from the new version's folder to the old version's end."""
    found: list[tuple[float, float]] = []
    loading = threading.Thread(target=lambda: found.extend(serving_load.load_log(url, body, AT_ONCE, REQUESTS)[1]))
    serving_load.load(url, body, AT_ONCE, 1000)
    loading.start()
    time.sleep(1.0)
    shutil.copytree(folder / "made", folder / f"{version}.part")
    begun = time.time()
    (folder / f"{version}.part").rename(folder / "models" / str(version))
    while _states(rest_port).get(str(version - 1), "END") != "END" or _states(rest_port).get(str(version)) != "AVAILABLE":
        time.sleep(0.01)
    ended = time.time()
    loading.join()
    return before_and_during(found, begun, ended)


def _states(rest_port: int) -> dict[str, str]:
    told = json.loads(serving_load.get(f"http://127.0.0.1:{rest_port}/v1/models/conv"))
    return {it["version"]: it["state"] for it in told["model_version_status"]}


def before_and_during(load: list[tuple[float, float]], begun: float, ended: float) -> tuple[float, float]:
    """The 99th percentiles of a load's milliseconds: before the rollout, and while it went on. Raises RuntimeError where that outlasted the load."""
    if not load or load[-1][0] < ended:
        raise RuntimeError(f"the load was over before the rollout, after {len(load)} requests")
    old, new = ([took for at, took in load if first <= at < last] for first, last in ((0.0, begun), (begun, ended)))
    return serving_load.percentile(old, 99), serving_load.percentile(new, 99)


def rows(what: str, before: list[float], during: list[float]) -> list[Row]:
    what = f"{what}, {AT_ONCE} in flight, p99"
    return [
        Row(f"{what} before a rollout", "ms", before),
        Row(f"{what} during it", "ms", during),
        Row(f"{what}, during to before", "times", [b / a for a, b in zip(before, during, strict=True)]),
    ]


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
