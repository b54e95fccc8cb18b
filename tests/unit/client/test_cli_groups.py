"""The other groups of the command, and what all of them share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import click
import grpc
import pytest
import typer
from typer.testing import Result

from services.chassis.topics import topics
from tests.unit.client.platform import Platform
from tests.unit.client.test_cli_runs import HOSTILE, add_run, objects
from trainyard._cli import app, checks, completion, exits
from trainyard._cli.topics import compare, wanted
from trainyard.cluster.v1 import cluster_pb2
from trainyard.endpoint.v1 import endpoint_pb2
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2
from trainyard.model.v1 import model_pb2

Cli = Callable[..., Result]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, click.Group) or hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_speaks_json_and_says_what_it_does(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    options = {option for parameter in command.params for option in parameter.opts}

    assert "--json" in options
    assert command.help
    assert all(getattr(parameter, "help", "x") or parameter.name in ("text", "min_nodes", "max_nodes") for parameter in command.params)


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[-1] in ("list", "queue")], ids=" ".join)
def test_every_list_is_paged(path: tuple[str, ...]) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}

    assert {"--limit", "--page-token", "--all"} <= options


def test_the_help_lists_every_exit_code(cli: Cli) -> None:
    shown = cli("--help").stdout

    for code, meaning in exits.MEANINGS.items():
        assert f"{int(code)}  {meaning}" in shown


def test_a_missing_config_says_how_to_start_a_stack(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRAINYARD_CONFIG")
    (tmp_path / "config.json").unlink()
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")

    result = cli("run", "list")

    assert result.exit_code == 2
    assert "make up" in result.stderr


def test_a_reader_that_has_had_enough_is_no_error(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    for number in range(2000):
        add_run(platform, f"exp_{number}", why="w" * 100)

    environment = {**os.environ, "TRAINYARD_CONFIG": str(tmp_path / "config.json"), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "trainyard", "run", "list", "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()

    assert (process.returncode, errors) == (0, "")


def test_a_pool_is_made_listed_shown_and_deleted(platform: Platform, cli: Cli) -> None:
    (made,) = objects(
        cli("compute", "create", "gpu", "--vm-size", "STANDARD_NC6", "--min-nodes", "1", "--max-nodes", "4", "--wait", "--json")
    )
    (listed,) = objects(cli("compute", "list", "--json"))
    (shown,) = objects(cli("compute", "show", "gpu", "--json"))
    unasked = cli("compute", "delete", "gpu")
    (deleted,) = objects(cli("compute", "delete", "gpu", "--yes", "--json"))

    assert made == listed
    assert (made["maxNodes"], made["ready"]) == (4, 1)
    assert shown["status"]["nodeStateCounts"]["idleNodeCount"] == 1
    assert (unasked.exit_code, deleted["deleted"], platform.pools) == (2, True, {})
    assert cli("compute", "show", "gpu").exit_code == 3
    assert cli("compute", "create", "gpu", "--priority", "cheap").exit_code == 2


def test_a_local_model_is_registered_listed_shown_downloaded_and_deployed(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")

    (made,) = objects(cli("model", "register", "digits", "model", "--framework", "TensorFlow", "--tag", "a=b", "--cpus", "0.5", "--json"))
    cli("model", "register", "digits", "model")
    listed = objects(cli("model", "list", "--json"))
    versions = objects(cli("model", "list", "--name", "digits", "--json"))
    first = cli("model", "list", "--versions", "--limit", "1", "--json")
    (fetched,) = objects(cli("model", "download", "digits:1", "-o", "got", "--json"))
    (deployed,) = objects(cli("model", "deploy", "digits", "digits-web", "--wait", "--json"))

    assert (made["id"], made["tags"], made["resourceRequirements"]["cpu"]) == ("digits:1", {"a": "b"}, 0.5)
    assert [it["id"] for it in listed] == ["digits:2"]
    assert [it["id"] for it in versions] == ["digits:2", "digits:1"]
    assert "--page-token digits:2" in first.stderr
    assert Path(fetched["path"], "saved_model.pb").read_bytes() == b"graph"
    assert (deployed["state"], platform.last(endpoint_pb2.DeployEndpoint).version) == ("Healthy", 2)
    assert [cli("model", "show", name).exit_code for name in ("nobody", "digits:x", "digits:9")] == [3, 2, 3]


def test_an_endpoint_speaks_tls_from_the_command_line_and_ends_it(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "weights").write_bytes(b"w")
    (tmp_path / "both.pem").write_text(f"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n{certificate}")
    cli("model", "register", "digits", "weights")
    tls = ("--tls-cert", str(tmp_path / "both.pem"), "--tls-key", str(tmp_path / "both.pem"), "--tls-name", "models.example")

    deployed = cli("model", "deploy", "digits", "digits-web", *tls)
    asked = platform.last(endpoint_pb2.DeployEndpoint).tls
    changed = cli("endpoint", "update", "digits-web", *tls)
    anew = platform.last(endpoint_pb2.UpdateEndpoint).tls
    ended = cli("endpoint", "update", "digits-web", "--no-tls")

    assert (deployed.exit_code, changed.exit_code, ended.exit_code) == (0, 0, 0), (deployed, changed, ended)
    assert asked == anew == endpoint_pb2.Tls(certificate_pem=certificate, cname="models.example")
    assert platform.last(endpoint_pb2.UpdateEndpoint).HasField("tls")
    assert not platform.last(endpoint_pb2.UpdateEndpoint).tls.certificate_pem
    for wrong in (tls[:4], ("--tls-name", "h")):
        result = cli("model", "deploy", "digits", "digits-web", *wrong)
        assert (result.exit_code, "--tls-name go together" in result.stderr.replace("\n", " ")) == (2, True)
    assert cli("endpoint", "update", "digits-web", "--no-tls", *tls).exit_code == 2


def test_a_deployment_that_cannot_go_live_ends_with_code_4(
    platform: Platform, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.client import platform as fakes

    (tmp_path / "weights").write_bytes(b"w")
    cli("model", "register", "digits", "weights")
    real = fakes._Endpoints.DeployEndpoint

    def failing(self: Any, request: Any, context: Any) -> Any:
        answer = real(self, request, context)
        answer.endpoint.state = endpoint_pb2.ENDPOINT_STATE_FAILED
        answer.endpoint.failure.code, answer.endpoint.failure.message = "NotASavedModel", "there is no saved_model.pb"
        self.platform.endpoints[request.endpoint].CopyFrom(answer.endpoint)
        return answer

    monkeypatch.setattr(fakes._Endpoints, "DeployEndpoint", failing)
    with fakes.running() as other:
        other.models = platform.models
        Path("config.json").write_text(json.dumps(other.config()))
        result = cli("model", "deploy", "digits", "digits-web", "--wait", "--json")

    assert result.exit_code == 4
    assert result.stderr.startswith("NotASavedModel: there is no saved_model.pb")


def test_lineage_is_nodes_and_edges(platform: Platform, cli: Cli) -> None:
    platform.lineage.nodes.add(id="run:exp_1", kind="run", label=HOSTILE)
    platform.lineage.edges.add(source="run:exp_1", target="model:digits:1", how="registered")

    assert objects(cli("model", "lineage", "digits:1", "--as-of", "1h", "--json"))[0]["edges"][0]["how"] == "registered"
    assert cli("model", "lineage", "digits").stdout == "run:exp_1 --registered--> model:digits:1\n"
    assert platform.last(history_pb2.GetLineageRequest).model == history_pb2.ModelRef(model="digits")


def test_a_model_that_stands_alone_is_said_to(platform: Platform, cli: Cli) -> None:
    result = cli("model", "lineage", "digits")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "digits came from no run" in result.stderr


def test_datasets_are_registered_listed_and_shown(platform: Platform, cli: Cli) -> None:
    (made,) = objects(cli("dataset", "register", "mnist data", "http://host/a.gz", "http://host/b.gz", "--tag", "a=b", "--json"))
    listed = objects(cli("dataset", "list", "--tag", "a", "--json"))
    (shown,) = objects(cli("dataset", "show", "mnist data", "--json"))

    assert (made["version"], made["files"], made["bytes"]) == (1, 2, 6)
    assert listed == [made]
    assert [it["url"] for it in shown["files"]] == ["http://host/a.gz", "http://host/b.gz"]
    assert objects(cli("dataset", "list", "--tag", "c", "--json")) == []
    assert cli("dataset", "show", "words").exit_code == 3


def test_a_dataset_is_made_where_config_says_and_of_local_files_too(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "config.json").rename(elsewhere / "config.json")
    (tmp_path / "words.txt").write_text("words")
    config = ("--config", str(elsewhere / "config.json"), "--json")

    (local,) = objects(cli("dataset", "register", "local", "words.txt", *config))
    (again,) = objects(cli("dataset", "show", "local", *config))
    (stored,) = objects(cli("dataset", "register", "stored", again["files"][0]["url"], *config))

    assert again["files"][0]["url"].startswith("datastore://")
    assert (local["files"], stored["files"]) == (1, 1)


def test_experiments_are_listed_with_their_runs(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    add_run(platform, "exp_2")
    add_run(platform, "other_1", experiment="other")

    assert [(it["name"], it["runs"]) for it in objects(cli("experiment", "list", "--json"))] == [("exp", 2), ("other", 1)]


def test_an_endpoints_log_is_told_line_by_line_and_never_raw(platform: Platform, cli: Cli) -> None:
    platform.endpoints["web"] = endpoint_pb2.Endpoint(endpoint="web", model="m", version=1, why=HOSTILE)

    plain, as_json = cli("endpoint", "logs", "web"), cli("endpoint", "logs", "web", "--json")

    assert plain.stdout == "started\n\\x1b]0;owned\\x07ready\n"
    assert [json.loads(line)["text"] for line in as_json.stdout.splitlines()] == ["started", "\x1b]0;owned\x07ready"]
    assert not set("\x1b\x07\u202e\x9b") & set(cli("endpoint", "list").stdout + cli("endpoint", "show", "web").stdout + as_json.stdout)
    assert cli("endpoint", "predict", "web").exit_code == 2
    assert cli("endpoint", "delete", "web", "--yes").exit_code == 0


def test_events_come_over_grpc_from_a_place_and_unknown_ones_too(platform: Platform, cli: Cli) -> None:
    known = job_pb2.RunQueued(run_id="exp_1", experiment="exp", why=HOSTILE)
    platform.events = [
        history_pb2.Event(key="exp_1", id="i1", type="trainyard.job.v1.RunQueued", source="scheduler", value=known.SerializeToString()),
        history_pb2.Event(key="exp_1", id="i2", type="trainyard.job.v9.RunDreamt", source=HOSTILE, value=b"\xff\x00"),
        history_pb2.Event(key="exp_1", id="i3", type="trainyard.job.v1.RunQueued", source="scheduler", value=b"\xff\xff\xff"),
    ]

    found = objects(cli("events", "subscribe", "--from", "trainyard.jobs/2@5", "--no-follow", "--json"))
    text = cli("events", "subscribe", "--from", "beginning", "--no-follow", "--type", "RunDreamt", "--limit", "1").stdout

    assert [it["id"] for it in found] == ["i1", "i2", "i3"]
    assert (found[0]["data"]["why"], found[1]["data"], found[2]["data"]) == (HOSTILE, {"bytes": "ff00"}, {"bytes": "ffffff"})
    assert "RunDreamt" in text and "a type that this client does not know" in text
    assert not set("\x1b\x07\u202e\x9b") & set(text)


def test_history_tells_its_lag_and_is_rebuilt_with_progress_apart(platform: Platform, cli: Cli) -> None:
    platform.history.applied.add(topic="trainyard.jobs", partition=0, next_offset=5, end_offset=9)

    (status,) = objects(cli("history", "status", "--json"))
    rebuilt = cli("history", "rebuild", "--yes", "--json")

    assert (status["lag"], status["applied"][0]["lag"]) == (4, 4)
    assert objects(rebuilt) == [{"events": 100, "of": 100, "done": True}]
    assert "50 of 100 events" in rebuilt.stderr
    assert cli("history", "rebuild").exit_code == 2


def test_doctor_looks_at_every_part_and_says_what_to_do(platform: Platform, cli: Cli) -> None:
    result = cli("doctor", "--json")

    found = {it["part"]: it for it in (json.loads(line) for line in result.stdout.splitlines())}
    assert result.exit_code == 5
    assert {
        "versions",
        "config",
        "kafka",
        "object store",
        "scheduler",
        "dataset",
        "registry",
        "serving",
        "history",
        "history's lag",
    } <= set(found)
    assert found["kafka"]["state"] == "bad" and "make up" in found["kafka"]["whatToDo"]
    assert found["scheduler"]["state"] == found["history's lag"]["state"] == "ok"
    assert found["config"]["state"] == "ok"
    assert cli("status").exit_code == 5


@pytest.mark.parametrize(
    ("answer", "state"), [(b'{"name": "trainyard-door"}', "ok"), (b'{"name": "triton"}', "warn"), (b"[]", "warn"), (b"no", "warn")]
)
def test_doctor_says_whether_models_are_found_by_name_or_somebody_else_has_the_port(answer: bytes, state: str) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - as the base class has it
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        stack = {"door": {"grpc": "127.0.0.1:1", "rest": f"127.0.0.1:{server.server_port}"}}
        try:
            found = checks.door(cast(Any, SimpleNamespace(_stack=stack)))
        finally:
            server.shutdown()
            serving.join()

    assert found.state == state
    assert ("somebody else answers there" in found.found) is (state == "warn")


def test_a_config_that_others_can_read_is_a_warning(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").chmod(0o644)

    assert "chmod 600" in cli("doctor").stdout


@pytest.mark.parametrize(("theirs", "state"), [(1000, "ok"), (1001, "ok"), (990, "warn"), (1010, "warn"), (900, "bad"), (1100, "bad")])
def test_a_clock_is_judged_by_whole_seconds(theirs: int, state: str) -> None:
    from email.utils import formatdate

    assert checks.skew(formatdate(theirs, usegmt=True), 1000.9, 1001.2).state == state
    assert checks.skew("no date", 1.0, 2.0).state == "warn"


def test_the_topics_are_read_as_the_platform_reads_them_and_compared() -> None:
    expected = wanted()

    assert expected == {name: (topic.partitions, topic.retention_ms) for name, topic in topics().items()}
    there = {
        name: (partitions, {"retention.ms": str(retention), "cleanup.policy": "delete"})
        for name, (partitions, retention) in expected.items()
    }
    assert compare(expected, there) == []
    there["trainyard.jobs"] = (3, {"cleanup.policy": "compact"})
    del there["trainyard.logs"]
    assert sorted(compare(expected, there)) == [
        "trainyard.jobs has 3 partitions, not 8",
        "trainyard.jobs: cleanup.policy is compact, not delete",
        "trainyard.logs is missing",
    ]


def test_completion_gives_names_and_is_silent_where_anything_is_amiss(
    platform: Platform, cli: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    add_run(platform, "exp_1")
    add_run(platform, f"exp_{HOSTILE}")
    platform.pools["gpu"] = cluster_pb2.Pool(name="gpu")
    platform.models["digits"] = [model_pb2.ModelVersion(model="digits", version=1)]

    assert completion.run_ids("exp") == ["exp_1"]
    assert (completion.pools(""), completion.models("di"), completion.models("x")) == (["gpu"], ["digits"], [])
    platform.refusals = {"ListRuns": (grpc.StatusCode.INTERNAL, "Broken")}
    assert completion.run_ids("") == []
    assert capfd.readouterr() == ("", "")


def test_completion_goes_through_the_pages_of_a_list_until_it_has_what_was_typed(platform: Platform, cli: Cli) -> None:
    add_run(platform, "oldest_1")
    for number in range(250):
        add_run(platform, f"exp_{number}")

    assert completion.run_ids("oldest") == ["oldest_1"]
    assert len(completion.run_ids("exp")) == 50


def test_completion_gives_what_came_before_something_went_amiss(platform: Platform, cli: Cli) -> None:
    def breaks_off(*_: object) -> Iterator[str]:
        yield "digits"
        raise RuntimeError("the second page does not come")

    assert completion._quietly(breaks_off)("di") == ["digits"]


def test_completion_asks_for_no_page_beyond_its_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 0.9, 1.5])
    monkeypatch.setattr("trainyard._cli.completion.time.monotonic", lambda: next(clock))
    patience: list[float] = []

    def pages(request: Any, timeout: float) -> Any:
        patience.append(timeout)
        if not timeout:
            raise TimeoutError
        return model_pb2.ListModelVersionsResponse(versions=[model_pb2.ModelVersion(model="digits")], next_page_token="more")

    with pytest.raises(TimeoutError):
        list(completion._listed(pages, model_pb2.ListModelVersionsRequest(), "versions"))

    assert patience == [1.0, pytest.approx(0.1), 0.0]


def test_the_shell_can_be_told_how_to_complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # who runs the tests need not be a shell's child

    result = cli("--show-completion", "bash")

    assert result.exit_code == 0
    assert "_TRAINYARD_COMPLETE" in result.stdout or "COMPLETE" in result.stdout


def test_ctrl_c_ends_with_code_130_and_a_full_disk_with_code_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: object) -> Any:
        raise KeyboardInterrupt

    def full(path: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainyard._workspace.Workspace.from_config", interrupted)
    assert cli("run", "list").exit_code == exits.Exit.INTERRUPTED
    monkeypatch.setattr("trainyard._workspace.Workspace.from_config", full)
    failed = cli("run", "list")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "No space left on device" in failed.stderr


def test_the_shell_is_given_the_names_of_runs(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    add_run(platform, "exp_1")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TRAINYARD_CONFIG": str(tmp_path / "config.json"),
        "_TRAINYARD_COMPLETE": "complete_bash", "COMP_WORDS": "trainyard run show ex", "COMP_CWORD": "3",
    }  # fmt: skip

    done = subprocess.run([sys.executable, "-m", "trainyard"], env=environment, capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("exp_1", "")


class Store:
    """A datastore as the client offers it."""

    name, datastore_type, account_name, container_name = "workspaceblobstore", "AzureBlob", "local", "trainyard"

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def upload(self, **options: Any) -> None:
        self.calls.append(options)

    def download(self, **options: Any) -> int:
        self.calls.append(options)
        return 2

    def list_files(self, prefix: str) -> list[str]:
        return [path for path in ("a/1", f"a/{HOSTILE}", "b") if path.startswith(prefix)]


def test_a_datastore_is_listed_filled_and_read(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard import Workspace

    store = Store()
    monkeypatch.setattr(Workspace, "datastores", {store.name: store}, raising=False)
    monkeypatch.setattr(Workspace, "get_default_datastore", lambda self: store, raising=False)

    assert [it["name"] for it in objects(cli("datastore", "list", "--json"))] == ["workspaceblobstore"]
    assert objects(cli("datastore", "upload", "folder", "data", "--overwrite", "--json"))[0]["target"] == "data"
    assert objects(cli("datastore", "download", "data", "-o", "got", "--json"))[0]["files"] == 2
    assert [it["path"] for it in objects(cli("datastore", "ls", "a/", "--json"))] == sorted(["a/1", f"a/{HOSTILE}"])
    assert not set("\x1b\x07\u202e\x9b") & set(cli("datastore", "ls").stdout)
    assert store.calls == [
        {"src_dir": "folder", "target_path": "data", "overwrite": True, "show_progress": False},
        {"target_path": "got", "prefix": "data", "overwrite": False, "show_progress": False},
    ]


def test_a_dataset_is_downloaded_by_the_client(platform: Platform, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard import FileDataset

    asked: list[dict[str, Any]] = []

    def download(self: FileDataset, **options: Any) -> list[str]:
        asked.append(options)
        return ["got/a"]

    monkeypatch.setattr(FileDataset, "download", download, raising=False)
    cli("dataset", "register", "mnist", "http://host/a")

    (done,) = objects(cli("dataset", "download", "mnist", "-o", "got", "--overwrite", "--json"))

    assert (done, asked) == ({"dataset": "mnist:1", "files": 1, "folder": "got"}, [{"target_path": "got", "overwrite": True}])


def test_a_terminal_without_the_characters_is_no_reason_to_stop(platform: Platform, tmp_path: Path, cli: Cli) -> None:
    add_run(platform, "exp_1", why="日本")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TRAINYARD_CONFIG": str(tmp_path / "config.json"), "PYTHONIOENCODING": "latin-1",
    }  # fmt: skip

    done = subprocess.run([sys.executable, "-m", "trainyard", "run", "list"], env=environment, capture_output=True, check=False)

    assert (done.returncode, done.stdout.split(b"\t")[-1]) == (0, b"\\u65e5\\u672c\n")
