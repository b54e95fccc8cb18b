"""Runs in Ray's own environment: `python serving_with_ray.py PORT MODEL`, its HTTP proxy and one replica, JSON as Starlette reads it."""

import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=64, logging_config={"enable_access_log": False})
class Perceptron:
    def __init__(self, folder: str) -> None:
        import serving_session

        self._session = serving_session
        self._call = serving_session.load(folder)

    async def __call__(self, request: Request) -> Any:
        return self._session.answer(self._call, (await request.json())["inputs"])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what Ray has started ends with it
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Perceptron.bind(sys.argv[2]), route_prefix="/")
    signal.pause()
