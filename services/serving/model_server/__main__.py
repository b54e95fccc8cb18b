"""Serves one SavedModel over gRPC and REST, in the model's own environment: TensorFlow, NumPy, grpcio and protobuf are all it needs.

Ports of 0 are chosen by the system. One JSON line on standard output says that it is ready, and where:
`{"ready": true, "signatures": [...], "grpc_port": 1, "rest_port": 2}`. TERM drains it: no new calls, and time for those under way.
Exit codes: 0 drained, 3 the model cannot be loaded, 4 a port is taken; the last line on standard error says why.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.serving.model_server.model import Model
    from services.serving.model_server.wire import Wire

LOAD_ERROR, PORT_TAKEN = 3, 4
DRAIN_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    options = _options()
    if sys.platform == "linux":
        _die_with(options.parent_pid or os.getppid())
    try:
        model, wire = _load(options.model_name, options.version, options.model_path)
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())
        print(f"cannot load {options.model_path}: {type(error).__name__}: {reason}", file=sys.stderr, flush=True)
        return LOAD_ERROR
    try:
        return _serve(model, wire, options)
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr, flush=True)
        return PORT_TAKEN


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--model-path", required=True, help="folder of the SavedModel")
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--share-ports", action="store_true", help="listen beside another server that shares its ports (SO_REUSEPORT)")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS, help="what calls under way have after TERM")
    parser.add_argument("--parent-pid", type=int, default=0, help="the process to die with; 0: whoever started this one")
    return parser.parse_args()


def _die_with(parent: int) -> None:
    """No orphan keeps a port: when the control plane is killed the kernel kills us, and its successor starts us anew."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel knew of our wish
        os._exit(1)


def _load(name: str, version: int, path: str) -> tuple[Model, Wire]:
    from services.serving.model_server.errors import INVALID_ARGUMENT, OUT_OF_RANGE, ServeError
    from services.serving.model_server.model import Model
    from services.serving.model_server.wire import Wire

    wire, model = Wire(), Model(name, version, path)
    try:
        model.warm_up()
    except ServeError as error:
        if error.code not in (INVALID_ARGUMENT, OUT_OF_RANGE):
            raise
        # Zeros may be no valid input (an empty image); that says nothing against the model.
        print(f"the first call, with zeros, was refused; serving all the same: {error.message}", file=sys.stderr, flush=True)
    return model, wire


def _serve(model: Model, wire: Wire, options: argparse.Namespace) -> int:
    """Until TERM. Raises OSError if a port is taken."""
    from services.serving.model_server import grpc_front, rest_front

    stopped, ready = threading.Event(), threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    rest = rest_front.start(model, options.host, options.rest_port, ready.is_set, share=options.share_ports)
    rpc, grpc_port = grpc_front.start(model, wire, options.host, options.grpc_port, ready.is_set, share=options.share_ports)
    ready.set()
    told = {"ready": True, "signatures": sorted(model.signatures), "grpc_port": grpc_port, "rest_port": rest.server_port}
    print(json.dumps(told), flush=True)
    # A signal may reach a thread that is being made just then, which wakes nobody: the main thread has to look by itself.
    while not stopped.wait(0.2):
        continue
    ready.clear()
    draining = rpc.stop(options.drain_seconds)
    rest.drain(options.drain_seconds)
    draining.wait()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # TensorFlow's threads need no farewell
