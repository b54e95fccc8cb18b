"""Serves a scoring script over REST, in the script's own environment: Python's standard library is all that it needs.

The working folder is the script's source folder. A port of 0 is chosen by the system. One JSON line on standard output says that it is
ready, and where: `{"ready": true, "signatures": [], "grpc_port": 0, "rest_port": 1}`. TERM drains it: no new calls, and time for those
under way. Exit codes: 0 drained, 3 the script cannot be served (its traceback is on standard error), 4 the port is taken; the last line
on standard error says why.
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
from services.serving.access import Access
from services.serving.sampling.sampler import Sampler
from services.serving.scoring_server import front
from services.serving.scoring_server.script import Script, ScriptFailed, told

SCRIPT_ERROR, PORT_TAKEN = 3, 4
DRAIN_SECONDS = 10.0


def main() -> int:
    options = _options()
    die_with(options.parent_pid)
    _forget_ourselves(options.then_path.split(os.pathsep) if options.then_path else [])
    try:
        script = Script(Path.cwd(), options.entry_script)
        script.init()
    except ScriptFailed as error:
        print(f"{error.traceback}{error}", file=sys.stderr, flush=True)
        return SCRIPT_ERROR
    try:
        return _serve(script, options)
    except OSError as error:
        print(f"cannot listen: {error}", file=sys.stderr, flush=True)
        return PORT_TAKEN


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entry-script", required=True, help="path of the script below the working folder")
    parser.add_argument("--rest-port", type=int, default=0)
    parser.add_argument("--rest-fd", type=int, help="a socket that listens already: its descriptor, inherited from whoever starts this")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--key-file", default="", help="who may call; see services/serving/access.py")
    parser.add_argument(
        "--samples", default="", help="a folder of the serving service's, for the request log; see services/serving/sampling"
    )
    parser.add_argument("--tls-file", default="", help="certificates and key in PEM; empty: no TLS")
    parser.add_argument("--then-path", default="", help="folders that the script may import from when its environment has no such module")
    parser.add_argument("--drain-seconds", type=float, default=DRAIN_SECONDS, help="what calls under way have after TERM")
    parser.add_argument("--parent-pid", type=int, default=0, help="the process to die with; 0: whoever started this one")
    return parser.parse_args()


def _forget_ourselves(then: list[str]) -> None:
    """A script may have a package `services` of its own: ours is loaded by now, and is found by nobody any more."""
    ours = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*(it for it in sys.path if it not in ours), *then]
    for name in [name for name in sys.modules if name.partition(".")[0] == "services"]:
        del sys.modules[name]
    if then:
        os.environ["PYTHONPATH"] = os.pathsep.join(then)  # for processes that the script starts


def _serve(script: Script, options: argparse.Namespace) -> int:
    """Until TERM. Raises OSError if the port is taken."""
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    sampler = Sampler(options.samples)
    server = front.start(script, Access(options.key_file), sampler, options.host, options.rest_port, options.rest_fd, options.tls_file)
    print(json.dumps({"ready": True, "signatures": [], "grpc_port": 0, "rest_port": server.port}), flush=True)
    # A signal may reach a thread that is being made just then, which wakes nobody: the main thread has to look by itself.
    while not stopped.wait(0.2):
        continue
    server.drain(options.drain_seconds)
    sampler.close()
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException as error:
        print(told(error), file=sys.stderr, flush=True)
        code = 1
    sys.stdout.flush()
    os._exit(code)  # threads that the script has left behind need no farewell
