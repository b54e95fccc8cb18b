"""`trainyard run ...`, against history and scheduler in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import Result

from tests.unit.client.platform import Platform
from trainyard.event.v1.artifact_pb2 import Artifact, Failure
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2, telemetry_pb2

Cli = Callable[..., Result]
NOW = datetime.now(UTC)


def add_run(platform: Platform, run_id: str, status: Any = job_pb2.RUN_STATUS_COMPLETED, *, ago: float = 0.0, **fields: Any) -> Any:
    run = job_pb2.Run(run_id=run_id, status=status, **{"experiment": "exp", **fields})
    run.queued_at.FromDatetime(NOW - timedelta(seconds=ago))
    view = history_pb2.RunView(run=run)
    platform.runs[run_id] = view
    return view


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_runs_are_listed_newest_first_one_object_a_line(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    add_run(platform, "exp_2", job_pb2.RUN_STATUS_RUNNING, tags={"team": "vision"}, why="3 of 3 ranks run")

    found = objects(cli("run", "list", "--json"))

    assert [it["runId"] for it in found] == ["exp_2", "exp_1"]
    assert (found[0]["status"], found[0]["tags"], found[0]["why"]) == ("Running", {"team": "vision"}, "3 of 3 ranks run")


def test_a_list_in_a_pipe_is_tab_separated_without_header_colours_or_breaks(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1", why="waits " * 60)

    result = cli("run", "list")

    (line,) = result.stdout.splitlines()
    assert line.split("\t")[:2] == ["exp_1", "Completed"]
    assert len(line) > 300
    assert "\x1b" not in line


def test_filters_are_asked_of_history(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1", tags={"team": "vision"})
    add_run(platform, "exp_2", job_pb2.RUN_STATUS_FAILED)
    add_run(platform, "other_3", job_pb2.RUN_STATUS_FAILED, experiment="other")

    assert [it["runId"] for it in objects(cli("run", "list", "--status", "failed", "--experiment", "exp", "--json"))] == ["exp_2"]
    assert [it["runId"] for it in objects(cli("run", "list", "--tag", "team=vision", "--json"))] == ["exp_1"]
    assert [it["runId"] for it in objects(cli("run", "list", "--tag", "team", "--json"))] == ["exp_1"]


def test_a_page_ends_with_the_way_to_the_next_on_standard_error(platform: Platform, cli: Cli) -> None:
    for number in range(5):
        add_run(platform, f"exp_{number}")

    first = cli("run", "list", "--limit", "2", "--json")
    token = first.stderr.split("--page-token ")[1].split(",")[0]
    second = cli("run", "list", "--limit", "2", "--page-token", token, "--json")
    everything = cli("run", "list", "--all", "--json")

    assert [it["runId"] for it in objects(first)] == ["exp_4", "exp_3"]
    assert [it["runId"] for it in objects(second)] == ["exp_2", "exp_1"]
    assert len(objects(everything)) == 5
    assert everything.stderr == ""


def test_since_ends_the_list_at_the_first_older_run(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_old", ago=7200)
    add_run(platform, "exp_new", ago=60)

    assert [it["runId"] for it in objects(cli("run", "list", "--since", "1h", "--json"))] == ["exp_new"]
    assert len(objects(cli("run", "list", "--since", "2000-01-01", "--json"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "list", "--status", "Sleeping"], "there is: "),
        (["run", "list", "--since", "yesterday"], "--since is an ISO time"),
        (["run", "list", "--as-of", "trainyard.jobs/x@1"], "--as-of"),
        (["run", "list", "--tag", "=x"], "NAME=VALUE"),
        (["run", "list", "--limit", "0"], "--limit"),
        (["run", "submit", ".", "--target", "cpu"], "--script or --command"),
        (["run", "submit", ".", "--script", "../etc/passwd"], "no file inside"),
    ],
)
def test_what_cannot_be_taken_ends_with_code_2_and_says_why(platform: Platform, cli: Cli, words: list[str], said: str) -> None:
    result = cli(*words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_run_that_is_not_there_ends_with_code_3(platform: Platform, cli: Cli) -> None:
    for words in (["show"], ["logs"], ["metrics"], ["files"], ["cancel"], ["wait"], ["download"], ["tag"]):
        result = cli("run", *words, "nobody_1", "--json")

        assert (words, result.exit_code, result.stdout) == (words, 3, "")
        assert result.stderr.startswith("RunNotFound: There is no run 'nobody_1'.")


def test_a_part_that_is_away_ends_with_code_5_and_a_refusal_with_code_1(platform: Platform, cli: Cli) -> None:
    platform.refusals = {"ListRuns": (grpc.StatusCode.UNAVAILABLE, "Unavailable"), "CancelRun": (grpc.StatusCode.INTERNAL, "Broken")}

    away, refused = cli("run", "list"), cli("run", "cancel", "exp_1")

    assert (away.exit_code, refused.exit_code) == (5, 1)
    assert "what to do: " in away.stderr


def test_show_tells_all_as_it_was_at_a_place_in_the_log(platform: Platform, cli: Cli) -> None:
    view = add_run(platform, "exp_1", job_pb2.RUN_STATUS_FAILED)
    view.run.failure.CopyFrom(Failure(code="UserError", message="boom", last_lines=["Traceback", "ValueError"], exit_code=1))
    view.files.append(Artifact(path="outputs/a", size_bytes=3, sha256="f" * 64))
    platform.metrics["exp_1"] = [telemetry_pb2.MetricPoint(name="loss", number=value) for value in (2.0, 1.0)]

    (shown,) = objects(cli("run", "show", "exp_1", "--as-of", "trainyard.jobs/3@17", "--json"))

    asked = platform.last(history_pb2.GetRunRequest)
    assert (asked.as_of.place.topic, asked.as_of.place.partition, asked.as_of.place.offset) == ("trainyard.jobs", 3, 17)
    assert shown["metrics"] == {"loss": 1.0}
    assert shown["error"] == {"code": "UserError", "message": "boom", "exitCode": 1, "lastLines": ["Traceback", "ValueError"]}
    assert shown["files"] == [{"path": "outputs/a", "bytes": 3, "sha256": "f" * 64}]


def test_a_failures_lines_stand_below_each_other_on_a_terminal_and_once(platform: Platform, cli: Cli) -> None:
    view = add_run(platform, "exp_1", job_pb2.RUN_STATUS_FAILED)
    message = "train.py failed: boom\nThe end of azureml-logs/70_driver_log.txt:\n  Traceback\n  ValueError: \x1b[2Jboom"
    view.run.failure.CopyFrom(
        Failure(code="ScriptFailed", message=message, last_lines=["Traceback", "ValueError: boom"], rank=0, exit_code=1)
    )

    shown = cli("run", "show", "exp_1").stdout

    assert "  message: train.py failed: boom\n    The end of azureml-logs/70_driver_log.txt:\n      Traceback\n" in shown
    assert "      ValueError: \\x1b[2Jboom\n" in shown and shown.count("Traceback") == 1


def test_a_time_without_a_zone_is_taken_as_utc(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")

    cli("run", "show", "exp_1", "--as-of", "2026-01-01T12:00:00")

    assert platform.last(history_pb2.GetRunRequest).as_of.time.ToDatetime(UTC) == datetime(2026, 1, 1, 12, tzinfo=UTC)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"


def test_hostile_text_reaches_no_terminal_raw_whatever_field_it_stands_in(platform: Platform, cli: Cli) -> None:
    view = add_run(
        platform, "exp_1", job_pb2.RUN_STATUS_FAILED, why=HOSTILE, tags={HOSTILE: HOSTILE}, display_name=HOSTILE, warnings=[HOSTILE]
    )
    view.run.failure.CopyFrom(Failure(code=HOSTILE, message=HOSTILE, last_lines=[HOSTILE]))
    view.files.append(Artifact(path=HOSTILE))
    platform.log_lines["exp_1"] = [HOSTILE, f"fine {HOSTILE}"]
    platform.metrics["exp_1"] = [telemetry_pb2.MetricPoint(name=HOSTILE, text=HOSTILE)]

    for words in (["list"], ["show", "exp_1"], ["logs", "exp_1"], ["metrics", "exp_1"], ["files", "exp_1"], ["wait", "exp_1", "--quiet"]):
        for form in ([], ["--json"]):
            result = cli("run", *words, *form)

            assert not set("\x1b\x07\u202e\x9b") & set(result.stdout + result.stderr), (words, form)


def test_logs_are_lines_as_written_and_can_be_searched(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    platform.log_lines["exp_1"] = ["epoch 1", "\x1b[32mloss\x1b[0m 0.5", "epoch 2"]

    assert cli("run", "logs", "exp_1").stdout == "epoch 1\nloss 0.5\nepoch 2\n"
    assert cli("run", "logs", "exp_1", "--contains", "EPOCH", "--rank", "3", "--follow").stdout == "epoch 1\nepoch 2\n"
    assert platform.last(history_pb2.ReadLogRequest).rank == 3
    assert objects(cli("run", "logs", "exp_1", "--first-line", "2", "--json"))[0]["line"] == 2


def test_following_goes_on_where_history_broke_off(platform: Platform, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.client import platform as fakes

    add_run(platform, "exp_1")
    whole = fakes._History.ReadLog
    platform.log_lines["exp_1"] = ["a", "b", "c"]
    broken = iter([True])

    def breaking(self: Any, request: Any, context: Any) -> Any:
        for number, answer in enumerate(whole(self, request, context)):
            if number == 2 and next(broken, False):
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            yield answer

    monkeypatch.setattr(fakes._History, "ReadLog", breaking)
    with fakes.running() as other:
        other.runs, other.log_lines = platform.runs, platform.log_lines
        Path("config.json").write_text(json.dumps(other.config()))
        result = cli("run", "logs", "exp_1", "--follow")

    assert result.stdout == "a\nb\nc\n"


def test_waiting_for_a_run_that_failed_ends_with_code_4(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1", spec={})
    add_run(platform, "exp_2", job_pb2.RUN_STATUS_FAILED, spec={})

    good, bad = cli("run", "wait", "exp_1", "--json"), cli("run", "wait", "exp_2", "--json")

    assert (good.exit_code, json.loads(good.stdout)["status"]) == (0, "Completed")
    assert (bad.exit_code, json.loads(bad.stdout)["status"]) == (4, "Failed")


def test_tags_are_set_and_taken_off_and_shown(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1", tags={"old": "1", "keep": "x"})

    changed = cli("run", "tag", "exp_1", "team=vision", "urgent", "--remove", "old", "--json")
    shown = cli("run", "tag", "exp_1", "--json")

    assert json.loads(changed.stdout) == json.loads(shown.stdout) == {"keep": "x", "team": "vision", "urgent": ""}


def test_children_are_those_of_the_run(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    add_run(platform, "exp_1_1", parent_run_id="exp_1")

    assert [it["runId"] for it in objects(cli("run", "children", "exp_1", "--json"))] == ["exp_1_1"]


def test_files_are_downloaded_whole_and_a_missing_one_is_code_3(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    import hashlib

    view = add_run(platform, "exp_1", spec={})
    platform.objects.put_bytes("k", b"abc")
    file = Artifact(path="outputs/a.txt", size_bytes=3, sha256=hashlib.sha256(b"abc").hexdigest(), object_key="k")
    view.run.outputs.files.append(file)
    view.files.append(file)

    one = cli("run", "download", "exp_1", "outputs/a.txt", "-o", str(tmp_path / "one"), "--json")
    all_of_it = cli("run", "download", "exp_1", "-o", str(tmp_path / "all"), "--json")
    missing = cli("run", "download", "exp_1", "outputs/b", "--json")

    assert (one.exit_code, all_of_it.exit_code, missing.exit_code) == (0, 0, 3)
    assert (tmp_path / "one" / "a.txt").read_bytes() == (tmp_path / "all" / "outputs" / "a.txt").read_bytes() == b"abc"


def test_a_folder_is_submitted_with_script_arguments_packages_and_inputs(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)")
    assert cli("dataset", "register", "mnist data", "http://host/a.gz").exit_code == 0

    result = cli(
        "run", "submit", "src", "--script", "train.py", "--target", "cpu", "--experiment", "mine", "--pip", "pandas<3", "--tag", "team=vision",
        "--framework-version", "2.15", "--variable", "SEED=1", "--input", "data=mnist data@download", "--max-seconds", "60",
        "--arg=--epochs", "--arg=3", "--json", "--", "--data", "@data",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    request = platform.last(job_pb2.SubmitRun)
    assert json.loads(result.stdout)["runId"] == request.submission_id
    spec = request.spec
    assert (request.experiment, spec.compute_target, spec.entry_script) == ("mine", "cpu", "train.py")
    assert [it.text or f"<{it.input}>" for it in spec.arguments] == ["--epochs", "3", "--data", "<data>"]
    assert (spec.environment.framework, spec.environment.framework_version, list(spec.environment.pip_packages)) == (
        "tensorflow",
        "2.15",
        ["pandas<3"],
    )
    assert (dict(spec.tags), dict(spec.environment.environment_variables), spec.max_duration.seconds) == (
        {"team": "vision"},
        {"SEED": "1"},
        60,
    )
    assert (spec.inputs[0].name, spec.inputs[0].dataset, spec.inputs[0].mode) == ("data", "mnist data", spec.inputs[0].MODE_DOWNLOAD)


def test_a_command_and_a_named_environment_make_a_run(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    from trainyard.environment.v1 import environment_pb2
    from trainyard.job.v1.spec_pb2 import EnvironmentSpec

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text("print(1)")
    platform.environments["vision"] = environment_pb2.EnvironmentVersion(
        name="vision", version=3, definition=EnvironmentSpec(name="vision", version=3)
    )

    result = cli("run", "submit", "src", "--command", "python train.py --x 'a b'", "--env", "vision:3", "--target", "cpu")

    assert result.exit_code == 0, result.output
    spec = platform.last(job_pb2.SubmitRun).spec
    assert list(spec.command) == ["python", "train.py", "--x", "a b"]
    assert (spec.environment.name, spec.environment.version) == ("vision", 3)
    assert result.stdout.strip().startswith("src_")


def test_numbers_that_json_has_no_word_for_are_told_by_name(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    values = (float("nan"), float("inf"), float("-inf"), 1.5)
    platform.metrics["exp_1"] = [telemetry_pb2.MetricPoint(name="loss", number=value) for value in values]

    result = cli("run", "metrics", "exp_1", "--json")

    def refuse_constant(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    found = [json.loads(line, parse_constant=refuse_constant)["value"] for line in result.stdout.splitlines()]
    assert found == ["NaN", "Infinity", "-Infinity", 1.5]


def test_a_folder_is_not_downloaded_with_its_namesakes(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    import hashlib

    view = add_run(platform, "exp_1", spec={})
    for path in ("outputs/model/a", "outputs/model2/b"):
        platform.objects.put_bytes(path, b"x")
        view.files.append(Artifact(path=path, size_bytes=1, sha256=hashlib.sha256(b"x").hexdigest(), object_key=path))

    assert cli("run", "download", "exp_1", "outputs/model", "-o", str(tmp_path / "got")).exit_code == 0
    assert [path.name for path in (tmp_path / "got").rglob("*") if path.is_file()] == ["a"]


def test_a_curated_environment_is_taken_and_said_and_the_local_pool_is_made(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")

    result = cli("run", "submit", ".", "--script", "train.py", "--env", "AzureML-TensorFlow-2.0-GPU", "--json")

    assert result.exit_code == 0, result.output
    spec = platform.last(job_pb2.SubmitRun).spec
    assert (spec.environment.framework, spec.environment.framework_version) == ("tensorflow", "2.0")
    assert "is here: Python 3.11 with TensorFlow 2.15.1" in result.stderr
    assert (spec.compute_target, list(platform.pools)) == ("local", ["local"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--env", "nobodys"], 3, "There is no environment 'nobodys'"),
        (["--env", "AzureML-Nonsense"], 2, "no curated environment near"),
        (["--env", "mine:x"], 2, "NAME or NAME:VERSION"),
        (["--env", "mine", "--pip", "six"], 2, "cannot be given beside it"),
    ],
)
def test_an_environment_that_cannot_be_taken_makes_no_run(words: list[str], code: int, said: str, platform: Platform, cli: Cli) -> None:
    Path("train.py").write_text("print(1)")

    result = cli("run", "submit", ".", "--script", "train.py", *words)

    assert (result.exit_code, platform.runs) == (code, {})
    assert said in result.stderr


def test_a_command_that_only_a_shell_understands_makes_no_run(platform: Platform, cli: Cli) -> None:
    result = cli("run", "submit", ".", "--command", "cat data | wc")

    assert (result.exit_code, platform.runs) == (2, {})
    assert "only a shell understands" in result.stderr
