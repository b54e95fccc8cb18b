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
FIELDS = ("name", "kind", "value", "at", "step", "description")
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
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}
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

    def _listen(self, connection: socket.socket, said: list[dict[str, Any]]) -> None:
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                item = json.loads(line)
                if "ask" in item:
                    self.asked.append(item)
                    connection.sendall(json.dumps(self.answers.get(item["ask"], {"ok": True})).encode() + b"\n")
                else:
                    said += [dict(zip(FIELDS, row, strict=True)) | {"run": item.get("run", "")} for row in item["metrics"]]

    def said(self) -> list[list[dict[str, Any]]]:
        """Metrics by connection, once every script has ended."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)
        for thread in self._threads:
            thread.join(30)
        return [said for said in self._said if said]

    def metrics(self) -> list[tuple[str, str, Any]]:
        (said,) = self.said()
        return [(item["name"], item["kind"], item["value"]) for item in said]

    def asks(self) -> list[dict[str, Any]]:
        """What was asked for, but for confirmations."""
        return [item for item in self.asked if item["ask"] not in ("sync", "flush")]

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
        names.setdefault("TRAINYARD_SPOOL", str(Path(agent.path).parent / "spool"))
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
    assert [value for _, _, value in values[:6]] == [0.5, 0.25, 7, 255, True, 2.5]
    assert math.isnan(values[6][2]) and math.isinf(values[7][2])
    assert (kind, items) == ("list", [1.0, 2.0])


def test_what_is_no_number_arrives_as_its_text(agent: Agent) -> None:
    a_script("run.log('x', object); run.log('x', 10 ** 400); run.log('x', b'raw'); run.log('x', 1 + 2j)", agent)

    assert [value for _, _, value in agent.metrics()] == ["<class 'object'>", 10**400, "b'raw'", "(1+2j)"]


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
    assert [item["ask"] for item in agent.asked] == ["flush"]
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


def test_a_step_and_a_description_travel_with_the_value(agent: Agent) -> None:
    a_script("run.log('x', 1.5, step=7, description='seven')\nrun.log_row('r', step=8, a=1)", agent)

    assert [(item["step"], item["description"]) for item in agent.said()[0]] == [(7, "seven"), (8, "")]


def test_a_second_kind_under_one_name_is_dropped_with_a_line(agent: Agent) -> None:
    result = a_script("run.log('x', 1)\nrun.log_list('x', [1, 2])\nrun.log('x', 2)", agent)

    assert "metric 'x' is a scalar; a list of that name was not logged" in result.stderr
    assert agent.metrics() == [("x", "scalar", 1), ("x", "scalar", 2)]


def test_tensors_and_fractions_become_numbers(agent: Agent) -> None:
    result = a_script(
        """
import fractions, decimal
class Tensor:
    def numpy(self): return self
    def item(self): return 0.5
class Eager:
    def numpy(self): return Tensor()
for value in (Tensor(), Eager(), fractions.Fraction(1, 4), decimal.Decimal('0.125')): run.log('x', value)
""",
        agent,
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert [value for _, _, value in agent.metrics()] == [0.5, 0.5, 0.25, 0.125]


def test_a_number_too_big_for_text_is_cut_and_not_an_error(agent: Agent) -> None:
    result = a_script("run.log('x', 1 << 20_000)", agent)

    assert (result.returncode, result.stderr) == (0, "")
    assert agent.metrics()[0][2].startswith("0x1000")


def test_a_table_that_is_too_big_is_left_out_and_the_rest_arrives(agent: Agent) -> None:
    result = a_script("run.log('a', 1)\nrun.log_list('big', ['x' * 3000] * 500)\nrun.log('b', 2)", agent)

    assert "'big' was not logged" in result.stderr
    assert [name for name, _, _ in agent.metrics()] == ["a", "b"]


def test_tags_and_properties_are_asked_for_as_texts(agent: Agent) -> None:
    a_script("run.tag('best')\nrun.set_tags({'lr': 0.1})\nrun.remove_tags(['old'])\nrun.add_properties({'n': 3})", agent)

    assert [{key: value for key, value in item.items() if key != "run"} for item in agent.asks()] == [
        {"ask": "tag", "set": {"best": ""}, "removed": []},
        {"ask": "tag", "set": {"lr": "0.1"}, "removed": []},
        {"ask": "tag", "set": {}, "removed": ["old"]},
        {"ask": "add_properties", "properties": {"n": "3"}},
    ]


def test_what_the_agent_refuses_is_raised_with_its_code(agent: Agent) -> None:
    agent.answers["add_properties"] = {"error": {"code": "UserError", "message": "it never changes", "target": "p"}}

    result = a_script(
        """
from trainyard import UserErrorException
try: run.add_properties({'p': 1})
except UserErrorException as error: print(error.code, error.target, error.message)
""",
        agent,
    )

    assert result.stdout == "UserError p it never changes\n"


def test_children_log_under_their_own_ids_and_end_when_told(agent: Agent) -> None:
    agent.answers["open_children"] = {"ok": ["c1", "c2"]}

    result = a_script(
        """
first, second = run.create_children(2)
run.log('x', 0)
first.log('x', 1)
with second: second.log('x', 2)
try:
    with first: raise ValueError('boom')
except ValueError: pass
print(first.parent is run, first.experiment.name == run.experiment.name)
run.complete(); run.fail('no'); run.cancel()
""",
        agent,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "True True\n", "")
    assert [(item["run"], item["value"]) for item in agent.said()[0]] == [("", 0), ("c1", 1), ("c2", 2)]
    closed = [item for item in agent.asks() if item["ask"] == "close"]
    assert [(item["run"], item["status"]) for item in closed] == [("c2", "COMPLETED"), ("c1", "FAILED")]
    assert closed[1]["failure"]["message"] == "ValueError: boom"
    assert closed[1]["failure"]["last_lines"][-1] == "ValueError: boom"


def test_uploads_are_copies_in_the_spool(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "a.txt").write_text("A")

    result = a_script(
        f"""
import io
run.upload_folder('kept', {str(tmp_path / "folder")!r})
run.upload_file('b.bin', io.BytesIO(b'B'))
""",
        agent,
    )

    files = [file for item in agent.asks() for file in item["files"]]
    assert (result.returncode, result.stderr) == (0, "")
    assert [name for name, _ in files] == ["kept/deep/a.txt", "b.bin"]
    assert [(tmp_path / "spool" / spooled).read_bytes() for _, spooled in files] == [b"A", b"B"]


def test_a_large_folder_is_uploaded_in_pieces_that_the_agent_takes(agent: Agent, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5):
        (folder / str(number)).write_text("x")

    result = a_script(f"from trainyard import _context\n_context._UPLOADS = 2\nrun.upload_folder('kept', {str(folder)!r})", agent)

    asked = [item["files"] for item in agent.asks()]
    assert (result.returncode, result.stderr) == (0, "")
    assert [len(it) for it in asked] == [2, 2, 1]
    assert sorted(path for it in asked for path, _ in it) == [f"kept/{number}" for number in range(5)]


def test_what_cannot_be_uploaded_is_raised(agent: Agent) -> None:
    result = a_script(
        """
from trainyard import UserErrorException
for name, path in (('x', '/nowhere'), ('../x', __import__('sys').executable)):
    try: run.upload_file(name, path)
    except UserErrorException as error: print(error.message)
""",
        agent,
    )

    assert result.stdout.splitlines() == ["/nowhere is no file.", "'../x' is no safe relative path."]
    assert agent.asks() == []


def test_an_image_is_a_file_and_a_metric_that_names_it(agent: Agent) -> None:
    result = a_script(
        """
class Plot:
    def savefig(self, file, format): file.write(b'picture')
run.log_image('a plot', plot=Plot())
run.log_confusion_matrix('cm', {'schema_type': 'confusion_matrix', 'schema_version': 'v1', 'data': {'matrix': [[1, 0], [0, 1]]}})
run.log_image('none')
run.log_residuals('bad', {'schema_type': 'other', 'data': {}})
""",
        agent,
        AZUREML_RUN_ID="r",
    )

    (name, kind, value), (_, second, document) = agent.metrics()
    assert result.returncode == 0 and len(result.stderr.splitlines()) == 2
    assert (name, kind, second) == ("a plot", "image", "confusion_matrix")
    assert value.startswith("aml://artifactId/ExperimentRun/dcid.r/a_plot_") and value.endswith(".png")
    assert [f"aml://artifactId/ExperimentRun/dcid.r/{item['files'][0][0]}" for item in agent.asks()] == [value, document]


def test_an_image_that_cannot_be_kept_fails_no_run(agent: Agent) -> None:
    agent.answers["upload"] = {"error": {"code": "Unavailable", "message": "away"}}

    result = a_script("class Plot:\n  def savefig(self, file, format): pass\nrun.log_image('p', plot=Plot())\nprint('on')", agent)

    assert result.stdout == "on\n"
    assert "was not logged: away" in result.stderr


def test_metrics_are_read_back_in_the_shapes_of_the_client(agent: Agent) -> None:
    agent.answers["metrics"] = {"ok": [["a", "scalar", 1], ["b", "scalar", 1], ["b", "scalar", 2]]}

    result = a_script("print(run.get_metrics(), run.get_metrics('a', recursive=True))", agent, AZUREML_RUN_ID="r")

    assert result.stdout == "{'a': 1, 'b': [1, 2]} {'r': {'a': 1}}\n"


def test_a_model_is_registered_by_the_agent(agent: Agent) -> None:
    agent.answers["register_model"] = {"ok": {"model": "m", "version": 3}}

    result = a_script("model = run.register_model('m', 'outputs/model')\nprint(model.name, model.version, model.id)", agent)

    assert result.stdout == "m 3 m:3\n"
    assert [(item["model"], item["path"]) for item in agent.asks()] == [("m", "outputs/model")]


def test_datasets_of_a_model_are_named_as_inputs_by_path_or_as_versions(agent: Agent) -> None:
    agent.answers["register_model"] = {"ok": {"model": "m", "version": 1}}
    script = """
import types
found = types.SimpleNamespace(name="other", version=2)
datasets = ["digits", ("training", run.input_datasets["digits"]), ("test", "a set:7"), ["validation", found]]
run.register_model("m", datasets=datasets, sample_input_dataset=found)
"""

    result = a_script(script, agent, TRAINYARD_INPUTS='{"digits": "/data/digits"}')

    assert result.stderr == ""
    assert agent.asks()[0]["datasets"] == [
        {"purpose": "", "input": "digits"},
        {"purpose": "training", "input": "digits"},
        {"purpose": "test", "name": "a set", "version": 7},
        {"purpose": "validation", "name": "other", "version": 2},
        {"purpose": "sample_input", "name": "other", "version": 2},
    ]


@pytest.mark.parametrize("datasets", ["'digits'", "7", "['no such input']", "[None]", "[(1, 'digits')]", "[('a', 'b', 'c')]"])
def test_what_is_no_dataset_of_a_model_is_refused_before_anything_is_asked_for(agent: Agent, datasets: str) -> None:
    script = f"""
from trainyard import UserErrorException
try: run.register_model("m", datasets={datasets})
except UserErrorException as error: print(error.target)
"""

    result = a_script(script, agent, TRAINYARD_INPUTS='{"digits": "/data/digits"}')

    assert (result.stdout, result.stderr, agent.asks()) == ("datasets\n", "", [])


def test_a_run_below_another_names_its_parent(agent: Agent) -> None:
    result = a_script("print(run.parent.id)", agent, TRAINYARD_PARENT_RUN_ID="above")

    assert result.stdout == "above\n"


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


def test_a_script_knows_its_workspaces_names_and_is_told_where_the_rest_is(agent: Agent) -> None:
    result = a_script(
        """
import copy
space = copy.copy(run.experiment.workspace)
print(space.name, space.subscription_id, space.resource_group, space.location, space, hasattr(space, 'datasets'))
space.get_default_datastore()
""",
        agent,
        AZUREML_ARM_WORKSPACE_NAME="yard",
        AZUREML_ARM_SUBSCRIPTION="mine",
        AZUREML_ARM_RESOURCEGROUP="group",
    )

    assert result.stdout == "yard mine group local Workspace(name='yard') False\n"
    assert "not 'get_default_datastore'" in result.stderr.splitlines()[-1]
    assert "run.input_datasets" in result.stderr.splitlines()[-1]


def test_a_file_that_was_logged_has_the_same_name_inside_the_script_as_outside(agent: Agent) -> None:
    agent.answers["metrics"] = {"ok": [["plot", "image", "plot_1.png"]]}

    result = a_script("print(run.get_metrics())", agent, AZUREML_RUN_ID="r_1")

    assert result.stdout == "{'plot': 'aml://artifactId/ExperimentRun/dcid.r_1/plot_1.png'}\n", result.stderr


def test_what_needs_the_platforms_services_says_so_in_a_script_that_has_no_grpc(agent: Agent) -> None:
    result = a_script(
        """
sys.modules.update({"grpc": None, "google": None, "google.protobuf": None})
from trainyard import Dataset, Environment, Model
for ask in (Dataset.get_by_name, Model, Environment.get):
    try:
        ask(run.experiment.workspace, "mine")
    except AttributeError as error:
        print(error)
""",
        agent,
    )

    assert result.stderr == ""
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        "A script's workspace has its names alone, and not a connection to the platform"
    ] * 3
