"""The door: one gRPC and one REST address for all models by name. It passes bytes on to the endpoints' own servers, and splits the calls of an
endpoint between two of its deployments where that is asked for.

One JSON line on standard output says that it is ready, and where: `{"ready": true, "grpc_port": 1, "rest_port": 2}`. TERM drains it.
Exit codes: 0 drained, 4 a port is taken; the last line on standard error says why.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path

from services.parent import die_with
from services.serving.door import PORT_TAKEN, grpc_door, rest_door
from services.serving.door.alarm import Alarm
from services.serving.door.routes import Table

DRAIN_SECONDS = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="what the serving service writes: which endpoint answers where")
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--control", default="", help="host:port of EndpointService, to wake endpoints that sleep; empty: they sleep on")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--parent-pid", type=int, default=0, help="the process to die with; 0: whoever started this one")
    options = parser.parse_args()
    die_with(options.parent_pid)
    try:
        return _serve(options)
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr, flush=True)
        return PORT_TAKEN


def _serve(options: argparse.Namespace) -> int:
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    table, shadows = (
        Table(options.table, wake=Alarm(options.control), is_private=options.host in ("127.0.0.1", "::1", "localhost")),
        grpc_door.Shadows(),
    )
    rest = rest_door.start(table, shadows, options.host, options.rest_port)
    rpc, grpc_port = grpc_door.start(table, shadows, options.host, options.grpc_port)
    print(json.dumps({"ready": True, "grpc_port": grpc_port, "rest_port": rest.server_port}), flush=True)
    while not stopped.wait(0.2):
        continue
    draining = rpc.stop(DRAIN_SECONDS)
    rest.drain(DRAIN_SECONDS)
    draining.wait()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
