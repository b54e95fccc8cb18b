"""The model server as a process: what it says when it cannot start, and how it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from tests.component.serving.conftest import REPO, Running, TensorFlow, command, predict_request, running, started, tensor

pytestmark = pytest.mark.component
_CALL = "/tensorflow.serving.PredictionService/Predict"
Ends = Callable[..., tuple[int, str]]


def test_a_folder_that_is_no_saved_model_ends_with_3_and_the_reason_as_last_line(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "model.h5").touch()

    code, said = ends(tmp_path)

    assert code == 3
    assert said.splitlines()[-1].startswith(f"cannot load {tmp_path}: ")
    assert "SavedModel" in said.splitlines()[-1]


def test_a_saved_model_that_is_damaged_ends_with_3(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)

    code, said = ends(tmp_path)

    assert code == 3
    assert said.splitlines()[-1].startswith(f"cannot load {tmp_path}: ")


@pytest.mark.parametrize("which", ["grpc_port", "rest_port"])
def test_a_port_that_is_taken_ends_with_4_and_names_it(ends: Ends, tensorflow: TensorFlow, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        code, said = ends(tensorflow.models / "half" / "model", **{which: port})

    assert code == 4
    assert f"127.0.0.1:{port} is taken" in said.splitlines()[-1]


def test_it_dies_with_its_parent(tensorflow: TensorFlow) -> None:
    """The parent is a process of its own here, so that it can be killed."""
    arguments = command(tensorflow.python, tensorflow.models / "half" / "model")
    parent = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    with subprocess.Popen([sys.executable, "-c", parent, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        child = psutil.Process(int(process.stdout.readline()))
        process.kill()

    assert _gone(child)


def test_a_parent_that_is_gone_before_it_starts_is_noticed(tensorflow: TensorFlow) -> None:
    arguments = command(tensorflow.python, tensorflow.models / "half" / "model", "--parent-pid", "999999999")

    done = subprocess.run(arguments, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)})

    assert (done.returncode, done.stdout) == (1, "")


def _gone(process: psutil.Process) -> bool:
    """Dead, or dead and not yet collected by whoever inherited it."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(20)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_term_answers_the_grpc_call_that_is_under_way_and_takes_no_more(tensorflow: TensorFlow) -> None:
    count = predict_request({"n": tensor(9, [], int64_val=[2_000_000])}, "count").SerializeToString()
    quick = predict_request({"x": tensor(1, [1], float_val=[1.0])}).SerializeToString()
    model = tensorflow.models / "half" / "model"

    # How long the call takes is the machine's affair; the time that draining has must not be what ends it.
    with running(tensorflow.python, model, "--drain-seconds", "300") as server, grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary(_CALL, bytes, bytes)
        long = call.future(count, timeout=300)
        call(quick, timeout=300)  # on the same connection: the long one came in before it
        server.process.terminate()

        assert long.result()
        assert server.process.wait(300) == 0
        with pytest.raises(grpc.RpcError):
            call(quick, timeout=5)


def test_term_answers_the_rest_call_that_is_under_way_and_takes_no_more(tensorflow: TensorFlow) -> None:
    body = b'{"instances": [1]}'
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)

    with running(tensorflow.python, tensorflow.models / "half" / "model") as server:
        address = ("127.0.0.1", server.ready["rest_port"])
        with socket.create_connection(address, 30) as connection:
            connection.sendall(head)
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # from here on it reads the body
            server.process.terminate()
            _await_refusal(address)
            connection.sendall(body)
            answer = connection.recv(65536)

        assert server.process.wait(30) == 0
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer


def _await_refusal(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, 1).close()
        except ConnectionRefusedError:
            return
        except (TimeoutError, ConnectionResetError):
            continue  # so many attempts that the queue before the door is full, or one of them was in it when the door was shut
    raise AssertionError("still listening after 30 s")


def test_a_successor_shares_the_ports_and_goes_on_when_the_first_drains(tensorflow: TensorFlow) -> None:
    models = tensorflow.models
    with running(tensorflow.python, models / "half" / "model", "--share-ports") as first:
        ports = {"grpc_port": first.ready["grpc_port"], "rest_port": first.ready["rest_port"]}
        with running(tensorflow.python, models / "half-3" / "model", "--share-ports", **ports) as second:
            assert (second.grpc_address, second.rest) == (first.grpc_address, first.rest)
            first.process.terminate()
            assert first.process.wait(30) == 0

            assert list(_predict(second).outputs["y"].float_val) == [3.5]


def _predict(server: Running) -> Any:
    return server.predict(x=tensor(1, [1], float_val=[1.0]))


def test_successors_take_over_a_grpc_port_and_callers_without_retries_lose_nothing(tensorflow: TensorFlow) -> None:
    """gRPC's default channel, kept, shared and new for each call. Several times: what may go wrong takes a moment. Over REST a new connection
    may be cut off where the socket is not inherited."""
    model, done, good, bad = tensorflow.models / "half" / "model", threading.Event(), Counter[str](), Counter[str]()
    request = predict_request({"x": tensor(1, [1], float_val=[1.0])}).SerializeToString()
    shares = ("--share-ports", "--grpc-channel-arguments=grpc.max_connection_age_ms=1000")

    def by_rest(uri: str) -> None:
        while not done.is_set():
            try:
                answer = httpx.post(uri, json={"instances": [1]}, timeout=30)  # a new connection each time
            except httpx.HTTPError as error:
                bad[repr(error)] += 1
            else:
                good["rest" if answer.json() == {"predictions": [2.5]} else answer.text] += 1

    def one_call(channel: grpc.Channel, who: str) -> None:
        try:
            channel.unary_unary(_CALL, bytes, bytes)(request, timeout=30)
        except grpc.RpcError as error:
            good[f"{who}: {error.code()} {error.details()}"] += 1
        else:
            good[who] += 1

    def kept(address: str) -> None:
        with _a_connection_to(address) as channel:
            while not done.is_set():
                one_call(channel, "kept")

    def anew(address: str) -> None:
        while not done.is_set():
            with _a_connection_to(address) as channel:
                one_call(channel, "anew")

    with ExitStack() as all_of_them:
        server = all_of_them.enter_context(running(tensorflow.python, model, *shares))
        ports = {"grpc_port": server.ready["grpc_port"], "rest_port": server.ready["rest_port"]}
        shared = all_of_them.enter_context(_a_connection_to(server.grpc_address))
        callers = [
            threading.Thread(target=by_rest, args=(f"{server.rest}/v1/models/half:predict",)),
            *(threading.Thread(target=call, args=(server.grpc_address,)) for call in (kept, kept, anew)),
            *(threading.Thread(target=lambda: [one_call(shared, "shared") for _ in iter(done.is_set, True)]) for _ in range(3)),
        ]
        for caller in callers:
            caller.start()
        try:
            for _ in range(2):
                before = server
                server = all_of_them.enter_context(running(tensorflow.python, model, *shares, **ports))
                before.process.terminate()
                assert before.process.wait(60) == 0
                count = good.copy()
                _await(lambda count=count: all(good[way] >= count[way] + 20 for way in ("rest", "kept", "anew", "shared")))  # type: ignore[misc]
        finally:
            done.set()
            for caller in callers:
                caller.join()

    assert good.keys() == {"rest", "kept", "anew", "shared"}
    assert bad.total() <= good["rest"] // 50, bad


def _a_connection_to(address: str) -> grpc.Channel:
    """All channels of a process to one address have one connection, unless told otherwise."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def test_on_an_inherited_socket_successors_take_over_and_no_call_is_lost(tensorflow: TensorFlow) -> None:
    """Kept connections and new ones. Several times: what may go wrong takes a moment."""
    done, answers = threading.Event(), Counter[str]()

    def call(uri: str, keeps: bool) -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                try:
                    answer = client.post(uri, json={"instances": [1]}, headers={} if keeps else {"connection": "close"})
                except httpx.HTTPError as error:
                    answers[repr(error)] += 1
                else:
                    answers["good" if answer.json() == {"predictions": [2.5]} else answer.text] += 1

    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as all_of_them:
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/models/half:predict"
        server = all_of_them.enter_context(_inheriting(tensorflow, listening))
        callers = [threading.Thread(target=call, args=(uri, keeps)) for keeps in (True, True, False)]
        for caller in callers:
            caller.start()
        for _ in range(3):
            before = server
            server = all_of_them.enter_context(_inheriting(tensorflow, listening))
            before.process.terminate()
            assert before.process.wait(60) == 0
        good = answers["good"]
        _await(lambda: answers["good"] >= good + 20)
        done.set()
        for caller in callers:
            caller.join()

    assert answers.keys() == {"good"}


def _inheriting(tensorflow: TensorFlow, listening: socket.socket) -> AbstractContextManager[Running]:
    words = command(tensorflow.python, tensorflow.models / "half" / "model", f"--rest-fd={listening.fileno()}")
    return started(words, inherited=(listening.fileno(),))


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within 30 s"
        time.sleep(0.01)
