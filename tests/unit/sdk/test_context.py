"""The run as its own script sees it: what a script logs reaches the agent's socket in order, and nothing of it fails the script."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]
BEGIN = """
import sys
from trainyard._context import get_context
run = get_context()
"""


class Agent:
    """Listens as an agent does, and keeps what each connection says until it ends."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "run.sock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen()
        self._threads: list[threading.Thread] = []
        self._said: list[list[dict[str, Any]]] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            said: list[dict[str, Any]] = []
            self._said.append(said)
            thread = threading.Thread(target=self._listen, args=(connection, said), daemon=True)
            thread.start()
            self._threads.append(thread)

    @staticmethod
    def _listen(connection: socket.socket, said: list[dict[str, Any]]) -> None:
        with connection, connection.makefile("rb") as lines:
            said.extend(json.loads(line) for line in lines)

    def said(self) -> list[list[dict[str, Any]]]:
        """By connection, once every script has ended."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        for thread in self._threads:
            thread.join(30)
        return self._said

    def metrics(self) -> list[tuple[str, str, Any]]:
        (said,) = self.said()
        return [(item["name"], item["kind"], item["value"]) for item in said]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


def a_script(text: str, agent: Agent | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """It runs to its end, as the agent would start it."""
    names = {"PYTHONPATH": str(REPO / "sdk"), "PATH": os.environ["PATH"], **environment}
    if agent is not None:
        names["TRAINYARD_RUN_SOCKET"] = agent.path
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + text], env=names, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_a_script_logs_arrives_in_order(agent: Agent) -> None:
    result = a_script("for n in range(2000): run.log('loss', n)", agent)

    assert (result.returncode, result.stderr) == (0, "")
    assert agent.metrics() == [("loss", "scalar", number) for number in range(2000)]


def test_every_kind_of_metric_arrives_as_it_was_logged(agent: Agent) -> None:
    result = a_script(
        """
run.log('accuracy', 0.93)
run.log('note', 'fine ü')
run.log('done', True)
run.log('nothing', None)
run.log_list('losses', [3, 2.5, 'x'])
run.log_row('point', x=1, y=2.5)
run.log_table('table', {'x': [1, 2], 'y': 'z'})
""",
        agent,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert agent.metrics() == [
        ("accuracy", "scalar", 0.93),
        ("note", "scalar", "fine ü"),
        ("done", "scalar", True),
        ("nothing", "scalar", None),
        ("losses", "list", [3, 2.5, "x"]),
        ("point", "row", {"x": 1, "y": 2.5}),
        ("table", "table", {"x": [1, 2], "y": "z"}),
    ]


def test_numbers_of_numpy_become_plain_numbers(agent: Agent) -> None:
    pytest.importorskip("numpy")

    result = a_script(
        """
import numpy as np
for value in (np.float32(0.5), np.float64(0.25), np.int64(7), np.uint8(255), np.bool_(True), np.array(2.5), np.float64('nan'), np.float64('inf')):
    run.log('x', value)
run.log_list('list', np.array([1.0, 2.0]))
""",
        agent,
    )

    *values, (_, kind, items) = agent.metrics()
    assert (result.returncode, result.stderr) == (0, "")
    assert [value for _, _, value in values[:6]] == [0.5, 0.25, 7, 255, 1, 2.5]
    assert math.isnan(values[6][2]) and math.isinf(values[7][2])
    assert (kind, items) == ("list", [1.0, 2.0])


def test_what_is_no_number_arrives_as_its_text(agent: Agent) -> None:
    a_script("run.log('x', object); run.log('x', 10 ** 400); run.log('x', b'raw'); run.log('x', 1 + 2j)", agent)

    assert [value for _, _, value in agent.metrics()] == ["<class 'object'>", "1" + "0" * 400, "b'raw'", "(1+2j)"]


def test_texts_are_cut_and_not_refused(agent: Agent) -> None:
    a_script("run.log('x', 'a' * 10_000)", agent)

    assert agent.metrics() == [("x", "scalar", "a" * 3000)]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("run.log('', 1)", "1 to 256 characters"),
        ("run.log('x' * 257, 1)", "1 to 256 characters"),
        ("run.log(7, 1)", "1 to 256 characters"),
        ("run.log(' x', 1)", "no space at its ends"),
        ("run.log('a\\nb', 1)", "no control character"),
        ("run.log('a\\ud800', 1)", "no control character"),
        ("run.log('x', [1, 2])", "use log_list"),
        ("run.log('x', iter([1]))", "use log_list"),
        ("run.log('x', {'a': 1})", "use log_list"),
        ("run.log_list('x', 7)", "was not logged"),
        ("run.log_table('x', 7)", "was not logged"),
        ("class Bad:\n  def __float__(self): raise RuntimeError('no float')\nrun.log('x', Bad())", "was not logged: no float"),
        (
            "class Bad:\n  def __float__(self): raise ValueError\n  def __repr__(self): raise RuntimeError('no text')\nrun.log('x', Bad())",
            "was not logged",
        ),
    ],
)
def test_what_cannot_be_logged_is_a_line_on_standard_error_and_the_script_goes_on(call: str, told: str, agent: Agent) -> None:
    result = a_script(f"{call}\nrun.log('after', 1)\nprint('the end')", agent)

    assert (result.returncode, result.stdout) == (0, "the end\n")
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert agent.metrics() == [("after", "scalar", 1)]


def test_flush_returns_when_everything_is_written(agent: Agent) -> None:
    result = a_script("import os\nfor n in range(500): run.log('x', n)\nrun.flush()\nos._exit(0)", agent)

    assert result.returncode == 0
    assert len(agent.metrics()) == 500


def test_the_end_of_the_process_writes_out_what_is_queued(agent: Agent) -> None:
    result = a_script("for n in range(500): run.log('x', n)\nsys.exit(3)", agent)

    assert result.returncode == 3
    assert len(agent.metrics()) == 500


def test_an_exception_that_ends_the_script_writes_out_what_is_queued(agent: Agent) -> None:
    result = a_script("for n in range(500): run.log('x', n)\nraise RuntimeError('the script failed')", agent)

    assert result.returncode == 1
    assert len(agent.metrics()) == 500


def test_threads_may_log_at_the_same_time(agent: Agent) -> None:
    a_script(
        """
import threading
threads = [threading.Thread(target=lambda n=n: [run.log(f't{n}', i) for i in range(200)]) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
        agent,
    )

    metrics = agent.metrics()
    for number in range(4):
        assert [value for name, _, value in metrics if name == f"t{number}"] == list(range(200))


def test_a_forked_child_logs_on_a_connection_of_its_own(agent: Agent) -> None:
    result = a_script(
        """
import os
run.log('parent', 1)
child = os.fork()
if child == 0:
    run.log('child', 1)
    run.flush()
    os._exit(0)
os.waitpid(child, 0)
run.log('parent', 2)
""",
        agent,
    )

    said = sorted([[item["name"] for item in connection] for connection in agent.said()])
    assert (result.returncode, result.stderr) == (0, "")
    assert said == [["child"], ["parent", "parent"]]


def test_a_process_of_multiprocessing_writes_out_what_is_queued_when_it_ends(agent: Agent) -> None:
    """Such a process ends without the exit handlers of Python."""
    result = a_script(
        """
import multiprocessing
def work():
    for n in range(500): run.log('child', n)
process = multiprocessing.get_context('fork').Process(target=work)
process.start()
process.join()
""",
        agent,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert [[item["value"] for item in connection] for connection in agent.said()] == [list(range(500))]


def test_an_agent_that_is_gone_costs_one_complaint_and_no_run(tmp_path: Path) -> None:
    result = a_script("for n in range(100): run.log('x', n)\nrun.flush()\nprint('the end')", TRAINYARD_RUN_SOCKET=str(tmp_path / "none"))

    assert (result.returncode, result.stdout) == (0, "the end\n")
    assert len(result.stderr.splitlines()) == 1
    assert "was not logged" in result.stderr


def test_a_run_knows_its_names_and_inputs(agent: Agent) -> None:
    result = a_script(
        "print(run.id, run.run_id, run.experiment.name, run.input_datasets['mnist'], run.get_status(), run)",
        agent,
        AZUREML_RUN_ID="tf-mnist_17",
        AZUREML_ARM_PROJECT_NAME="tf-mnist",
        TRAINYARD_INPUTS='{"mnist": "/data/mnist"}',
    )

    assert result.stdout == "tf-mnist_17 tf-mnist_17 tf-mnist /data/mnist Running Run(experiment='tf-mnist', id='tf-mnist_17')\n"


def test_every_call_gives_the_same_run(agent: Agent) -> None:
    result = a_script("print(get_context() is run)", agent)

    assert result.stdout == "True\n"


def test_outside_of_a_run_what_would_be_logged_is_printed() -> None:
    result = a_script("run.log('loss', 0.5)\nrun.log_row('point', x=1)\nrun.flush()\nrun.complete()")

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["Attempted to log scalar metric loss:", "0.5", "Attempted to log row metric point:", "{'x': 1}"]


def test_a_script_may_insist_on_a_run() -> None:
    result = a_script("import trainyard._context as context\ncontext._current = None\ncontext.get_context(allow_offline=False)")

    assert result.returncode == 1
    assert "not part of a submitted run" in result.stderr


def test_nothing_but_the_standard_library_is_imported() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import trainyard._context, sys; print([n for n in sys.modules if n.split('.')[0] in ('google', 'grpc', 'kafka', 'numpy')])",
        ],
        env={"PYTHONPATH": str(REPO / "sdk")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.stdout, result.stderr) == ("[]\n", "")
