"""Serves one SavedModel over gRPC and REST. Needs only TensorFlow, NumPy, grpcio and protobuf. Exit 3: cannot load; 4: port taken."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import threading
import traceback

LOAD_ERROR, PORT_TAKEN = 3, 4
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """No orphan keeps a port: when the control plane is killed the kernel kills us, and its successor starts us anew."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--rest-port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        die_with_parent()
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())

    try:
        from services.serving.model_server import grpc_front, rest_front
        from services.serving.model_server.errors import INVALID_ARGUMENT, OUT_OF_RANGE, ServeError
        from services.serving.model_server.model import Model
        from services.serving.model_server.wire import Wire

        wire = Wire()
        model = Model(arguments.model_name, arguments.version, arguments.model_path)
        try:
            model.warm_up()
        except ServeError as error:
            if error.code not in (INVALID_ARGUMENT, OUT_OF_RANGE):
                raise
            # Zeros may be no valid input (an empty image); that says nothing against the model.
            print(f"warm-up call was refused, serving without it: {error.message}", file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exc()
        print(f"cannot load {arguments.model_path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return LOAD_ERROR

    ready = threading.Event()
    try:
        rest, rest_port = rest_front.start(model, arguments.host, arguments.rest_port, ready.is_set)
        server, grpc_port = grpc_front.start(model, wire, arguments.host, arguments.grpc_port, ready.is_set)
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr, flush=True)
        return PORT_TAKEN
    ready.set()
    print(json.dumps({"ready": True, "signatures": sorted(model.signatures), "grpc_port": grpc_port, "rest_port": rest_port}), flush=True)
    stopped.wait()
    ready.clear()
    rest.shutdown()
    server.stop(5).wait()
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    code = main()
    sys.stdout.flush()
    os._exit(code)  # TensorFlow's threads need no farewell
