"""How long calls through the door take while an endpoint's new version takes over in a process of its own, against before.

On a running stack (`make up`), with everything on the same cores but the load, which is on core 1: the new server imports TensorFlow and loads
beside the old one, which answers meanwhile. h2load makes the load; an answer that is no 200 ends the measurement.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import serving_load
from benchmarks.report import Row
from benchmarks.serving_floor import request
from benchmarks.serving_rollout import AT_ONCE, before_and_during, rows
from trainyard import Model, Workspace

TRIALS, BEFORE_SECONDS = 3, 4.0
_LEAST_REQUESTS = 4000
_SECONDS = 40
_CALL = "/tensorflow.serving.PredictionService/Predict"


def measure(home: Path) -> list[Row]:
    serving_load.check_tools()
    space, name = Workspace.from_config(str(home / "config.json")), f"takeover-{secrets.token_hex(3)}"
    before: dict[str, list[float]] = defaultdict(list)
    during: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serving_load.save_model(folder / "made")
        first = Model.register(space, str(folder / "made"), name, model_framework="TensorFlow", model_framework_version="2.21")
        second = Model.register(space, str(folder / "made"), name, model_framework="TensorFlow", model_framework_version="2.21")
        bodies = {"gRPC": folder / "row.grpc", "REST": folder / "row.json"}
        bodies["gRPC"].write_bytes(serving_load.frame(request(name)))
        bodies["REST"].write_text(json.dumps({"instances": [[(number % 17) / 17 for number in range(784)]]}))
        service = Model.deploy(space, name, [first])
        try:
            service.wait_for_deployment()
            urls = {"gRPC": f"http://{service.door_grpc_address}{_CALL}", "REST": service.door_scoring_uri}
            _await_door(urls["REST"], bodies["REST"])
            for trial in range(TRIALS):
                for at, (way, url) in enumerate(urls.items()):
                    model = (second, first)[(2 * trial + at) % 2]
                    old, new = _one(service, model, url, bodies[way])
                    before[way].append(old)
                    during[way].append(new)
        finally:
            service.delete()
    return [row for way in urls for row in rows(f"{way} Predict through the door, a new server", before[way], during[way])]


def _await_door(url: str, body: Path) -> None:
    import httpx

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if httpx.post(url, content=body.read_bytes(), timeout=60).status_code == 200:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")


def _one(service: Any, model: Any, url: str, body: Path) -> tuple[float, float]:
    """The 99th percentiles in milliseconds: before, and from the request for the new version until it answers and the old one has gone."""
    rate, _ = serving_load.load_log(url, body, AT_ONCE, _LEAST_REQUESTS)
    requests = int(rate * _SECONDS)
    found: list[tuple[float, float]] = []
    loading = threading.Thread(target=lambda: found.extend(serving_load.load_log(url, body, AT_ONCE, requests)[1]))
    loading.start()
    time.sleep(BEFORE_SECONDS)
    begun = time.time()
    service.update(models=[model])
    service.wait_for_deployment()
    ended = time.time()
    loading.join()
    return before_and_during(found, begun, ended)


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
