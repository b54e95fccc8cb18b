"""What a client tells about a run on its own: metrics to Kafka, the git state of a folder, errors with Azure's information."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import trainyard
from trainyard import ActivityFailedException, AzureMLException, Run, TrainyardException
from trainyard._errors import from_failure, headline
from trainyard._git import properties, without_credentials
from trainyard._metric_sender import MetricSender
from trainyard._watch import Line
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1.history_pb2 import RunView
from trainyard.job.v1 import job_pb2
from trainyard.job.v1.spec_pb2 import RunSpec


class Broker:
    """Takes events, after it was away for some calls; `open` lets the first call through."""

    def __init__(self, away: int = 0) -> None:
        self.calls: list[list[Any]] = []
        self.taken: list[Any] = []
        self.away = away
        self.open = threading.Event()
        self.open.set()
        self.closed = threading.Event()

    def publish(self, events: Sequence[Any]) -> None:
        self.open.wait(30)
        self.calls.append(list(events))
        if self.away:
            self.away -= 1
            raise ConnectionError("away")
        self.taken += events

    def close(self) -> None:
        self.closed.set()

    def points(self) -> list[tuple[str, int, str, float]]:
        return [(it.message.run_id, it.message.epoch, point.name, point.number) for it in self.taken for point in it.message.points]


def a_point(name: Any = "x", value: Any = 1.0, kind: str = "scalar") -> Any:
    return (name, kind, value, 1.0, None, "")


def test_points_arrive_in_order_under_their_runs() -> None:
    broker = Broker()
    sender = MetricSender(broker)

    for number in range(300):
        sender.put("a" if number % 2 else "b", 0, a_point(value=float(number)))
    assert sender.flush(30)

    assert [value for run, _, _, value in broker.points() if run == "a"] == [float(number) for number in range(1, 300, 2)]
    assert all(event.key == event.message.run_id for event in broker.taken)


def test_a_broker_that_is_away_is_told_once_and_gets_the_same_events_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainyard._metric_sender._RETRY_SECONDS", 0.0)
    broker = Broker(away=3)
    sender = MetricSender(broker)

    sender.put("run", 1, a_point())
    assert sender.flush(30)

    assert len({event.event_id for call in broker.calls for event in call}) == 1
    assert capsys.readouterr().err.count("metrics wait") == 1


def test_a_flush_that_ends_too_early_says_so() -> None:
    broker = Broker()
    broker.open.clear()
    sender = MetricSender(broker)

    sender.put("run", 1, a_point())
    early = sender.flush(0.01)
    broker.open.set()

    assert (early, sender.flush(30)) == (False, True)


def test_what_is_no_metric_is_told_and_the_rest_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    broker = Broker()
    sender = MetricSender(broker)

    sender.put("run", 1, a_point(name=" x"))
    sender.put("run", 1, a_point(value=["x" * 3000] * 300, kind="list"))
    sender.put("run", 1, a_point())
    assert sender.flush(30)

    assert len(broker.points()) == 1
    assert capsys.readouterr().err.count("was not logged") == 2


def test_a_client_that_has_nothing_to_say_holds_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard._metric_sender._IDLE_SECONDS", 0.01)
    broker = Broker()
    sender = MetricSender(broker)

    sender.put("run", 1, a_point())
    closed = broker.closed.wait(30)
    sender.put("run", 1, a_point())

    assert closed and sender.flush(30)
    assert len(broker.points()) == 2


def test_batches_fit_a_message() -> None:
    broker = Broker()
    sender = MetricSender(broker)

    for _ in range(10):
        sender.put("run", 1, a_point(value=["x" * 3000] * 100, kind="list"))
    assert sender.flush(30)

    assert all(len(event.value()) < 1_000_000 for event in broker.taken)
    assert len(broker.points()) == 10


# -- git


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("https://user:secret@host/a.git", "https://host/a.git"),
        ("https://token@host:8443/a.git?private_token=x#y", "https://host:8443/a.git"),
        ("ssh://git:secret@host/a", "ssh://git@host/a"),
        ("git@host:team/a.git", "git@host:team/a.git"),
        ("me:secret@host:team/a.git", "host:team/a.git"),
        ("https://host:port/a", ""),
        ("/srv/a.git", "/srv/a.git"),
        ("", ""),
    ],
)
def test_credentials_never_leave_with_the_address(uri: str, kept: str) -> None:
    assert without_credentials(uri) == kept


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.invalid", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_state_of_a_repository_becomes_properties(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q", "-b", "trunk")
    _git(tmp_path, "remote", "add", "origin", "https://me:secret@host/a.git")
    (tmp_path / "a.py").write_text("1")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")

    clean = properties(tmp_path)
    (tmp_path / "a.py").write_text("2")
    dirty = properties(tmp_path)

    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert clean == {
        "azureml.git.commit": commit, "mlflow.source.git.commit": commit, "azureml.git.dirty": "False",
        "azureml.git.branch": "trunk", "mlflow.source.git.branch": "trunk",
        "azureml.git.repository_uri": "https://host/a.git", "mlflow.source.git.repoURL": "https://host/a.git",
    }  # fmt: skip
    assert dirty["azureml.git.dirty"] == "True"


def test_a_folder_without_a_repository_and_a_machine_without_git_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = properties(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert (outside, properties(Path(__file__).parent)) == ({}, {})


def test_a_repository_cannot_have_a_program_started(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    (tmp_path / "evil").chmod(0o755)
    _git(tmp_path, "config", "core.fsmonitor", str(tmp_path / "evil"))

    properties(tmp_path)

    assert not (tmp_path / "started").exists()


# -- errors


def test_a_failed_run_carries_azures_information_and_what_to_do() -> None:
    failure = Failure(
        code="ScriptFailed", message="train.py exited with code 3", target="train.py", last_lines=["ValueError: x"], rank=0, exit_code=3
    )

    error = from_failure(failure, ActivityFailedException, fixed=True)

    shape = error.serialize()
    assert (shape["error"]["code"], shape["error"]["innerError"]["code"], shape["error"]["target"]) == (
        "UserError",
        "ScriptFailed",
        "train.py",
    )
    assert shape["error"]["messageParameters"] == {"rank": "0", "exitCode": "3"}
    assert shape["error"]["debugInfo"] == {"stackTrace": "ValueError: x"}
    assert shape.keys() == {"error", "correlation", "environment", "location", "time"}
    text = str(error)
    assert "what to do: " in text and "| ValueError: x" in text
    assert json.loads(text.partition("ErrorResponse\n")[2]) == shape


def test_lines_that_the_message_has_are_not_told_twice() -> None:
    message = "it failed: x\nThe end of the log:\n  Traceback\n  ValueError: x"
    failure = Failure(code="ScriptFailed", message=message, last_lines=["Traceback", "ValueError: x"], rank=0, exit_code=3)

    text = str(from_failure(failure))

    assert text.startswith(message) and text.count("Traceback") == 1
    assert headline(failure) == "it failed: x"


def test_what_the_platform_did_wrong_is_no_user_error() -> None:
    error = from_failure(Failure(code="AgentLost", message="gone"), ActivityFailedException, fixed=True)

    assert error.serialize()["error"]["code"] == "ServiceError"


@pytest.mark.parametrize(
    "name",
    [
        "UserErrorException", "WebserviceException", "ComputeTargetException", "SnapshotException", "ModelNotFoundException",
        "ModelPathNotFoundException", "ActivityFailedException", "ExperimentExecutionException", "TrainingException",
        "RunEnvironmentException", "ProjectSystemException", "AuthenticationException", "ServiceException", "RunConfigurationException",
        "ExperimentTimeoutException", "DiscoveryUrlNotFoundException", "ImageException",
    ],
)  # fmt: skip
def test_every_exception_of_azures_users_is_there_below_one_base(name: str) -> None:
    kind = getattr(trainyard, name)

    prefix = "ModelNotFound: " if name == "ModelNotFoundException" else ""

    error = kind("what happened")

    assert AzureMLException is TrainyardException
    assert isinstance(error, AzureMLException) and (error.message, error.inner_exception) == (f"{prefix}what happened", None)


# -- waiting


def a_run(monkeypatch: pytest.MonkeyPatch, news: Sequence[Any], error: type[BaseException] | None = None) -> Run:
    """A run whose states and lines come as given, and then the error."""

    def follow(*_: Any, **__: Any) -> Any:
        yield from news
        if error is not None:
            raise error

    monkeypatch.setattr("trainyard._watch.follow", follow)
    states = [item for item in news if isinstance(item, job_pb2.Run)]
    monkeypatch.setattr("trainyard._history.run_view", lambda *_, **__: RunView(run=states[-1]))
    experiment: Any = SimpleNamespace(name="exp", workspace=None)
    return Run(experiment, "exp_1", _message=a_state(job_pb2.RUN_STATUS_QUEUED))


def a_state(status: Any, **fields: Any) -> Any:
    return job_pb2.Run(run_id="exp_1", experiment="exp", status=status, spec=RunSpec(entry_script="train.py"), **fields)


def test_waiting_prints_the_run_its_log_and_a_summary(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    log = "azureml-logs/70_driver_log.txt"
    run = a_run(monkeypatch, [a_state(job_pb2.RUN_STATUS_RUNNING), Line(log, 1, 0, "step 1"), a_state(job_pb2.RUN_STATUS_COMPLETED)])

    details = run.wait_for_completion(show_output=True)

    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], printed[1].partition(":")[0]) == ("RunId: exp_1", "Web View")
    assert printed.index(f"Streaming {log}") < printed.index("step 1") < printed.index("Execution Summary")
    assert details["status"] == "Completed"


def test_a_run_that_failed_raises_with_the_error_as_json_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = a_state(job_pb2.RUN_STATUS_FAILED, failure=Failure(code="ScriptFailed", message="boom", last_lines=["ValueError: x"]))

    with pytest.raises(ActivityFailedException) as caught:
        a_run(monkeypatch, [failed]).wait_for_completion()
    quiet = a_run(monkeypatch, [failed]).wait_for_completion(raise_on_error=False)

    assert json.loads(str(caught.value).partition("ErrorResponse\n")[2])["error"]["message"] == "boom"
    assert quiet["status"] == "Failed"


def test_ctrl_c_ends_the_waiting_and_says_that_the_run_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(monkeypatch, [a_state(job_pb2.RUN_STATUS_RUNNING)], KeyboardInterrupt)

    with pytest.raises(KeyboardInterrupt):
        run.wait_for_completion(show_output=True)

    assert capsys.readouterr().err.startswith("The run goes on: exp_1")


def test_what_a_client_logs_to_a_scripts_run_counts_for_its_newest_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(monkeypatch, [])
    sent: list[tuple[str, int]] = []
    sender = SimpleNamespace(put=lambda run_id, epoch, point: sent.append((run_id, epoch)))
    monkeypatch.setattr("trainyard._metric_sender.sender_of", lambda workspace: sender)
    seen = iter([a_state(job_pb2.RUN_STATUS_RUNNING, epoch=2), a_state(job_pb2.RUN_STATUS_COMPLETED, epoch=3)])
    monkeypatch.setattr(run, "_fetch", lambda: next(seen))

    for number in range(3):
        run.log("x", number)

    assert sent == [("exp_1", 2), ("exp_1", 3), ("exp_1", 3)]
