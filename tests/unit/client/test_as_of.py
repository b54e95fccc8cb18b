"""--as-of and as_of=: the moment reaches history, whatever it is asked and however the moment is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.client.platform import Platform
from trainyard import Experiment, Model, Run
from trainyard._errors import UserErrorException
from trainyard._moments import as_of
from trainyard.history.v1 import history_pb2 as pb
from trainyard.job.v1 import job_pb2
from trainyard.model.v1.model_pb2 import ModelVersion

Cli = Callable[..., Result]
PLACE = pb.AsOf(place=pb.Place(topic="trainyard.jobs", partition=3, offset=17))
WORDS = ("--as-of", "trainyard.jobs/3@17", "--json")


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def add_run(platform: Platform, run_id: str) -> pb.RunView:
    view = pb.RunView(run=job_pb2.Run(run_id=run_id, experiment="exp", status=job_pb2.RUN_STATUS_RUNNING, number=1))
    view.run.spec.entry_script = "train.py"
    view.logs.add(log="logs/mine", lines=2, epoch=1)
    platform.runs[run_id] = view
    platform.log_lines[run_id] = ["one", "two"]
    return view


def test_a_log_and_the_experiments_are_asked_for_as_they_were(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")

    lines = objects(cli("run", "logs", "exp_1", *WORDS))
    experiments = objects(cli("experiment", "list", *WORDS))
    followed = cli("run", "logs", "exp_1", "--follow", *WORDS)
    cli("run", "logs", "exp_1")

    assert [it["text"] for it in lines] == ["one", "two"]
    assert [it["name"] for it in experiments] == ["exp"]
    assert [it.as_of for it in platform.asked if isinstance(it, pb.ReadLogRequest)][0] == PLACE
    assert platform.last(pb.ListExperimentsRequest).as_of == PLACE
    assert (followed.exit_code, "does not go on" in followed.stderr) == (2, True)
    assert not platform.last(pb.ReadLogRequest).HasField("as_of")


def test_pools_are_shown_and_listed_as_they_were(platform: Platform, cli: Cli) -> None:
    (shown,) = objects(cli("compute", "show", "cpu", *WORDS))
    listed = objects(cli("compute", "list", "--text", "GP", *WORDS))
    told = cli("compute", "show", "cpu", "--as-of", "1h").stdout

    assert (shown["name"], shown["maxNodes"], shown["nodes"], shown["deleted"]) == ("cpu", 4, ["agent-0"], False)
    assert [turn["what"] for turn in shown["turns"]] == ["PoolCreated", "PoolResized"]
    assert "PoolResized one waits" in told
    assert [it["name"] for it in listed] == ["gpu"]
    assert platform.last(pb.ListPoolsRequest).as_of == PLACE
    assert platform.last(pb.GetPoolRequest).as_of.HasField("time")


def test_models_are_listed_as_they_were_page_by_page(platform: Platform, cli: Cli) -> None:
    platform.models["digits"] = [ModelVersion(model="digits", version=number) for number in (1, 2, 3)]
    platform.models["digits"][1].tags["best"] = "yes"

    listed = objects(cli("model", "list", "--versions", "--tag", "best", *WORDS))
    cli("model", "list", *WORDS)
    newest = platform.last(pb.ListModelsRequest)
    found = Model.list(platform.workspace(), "digits", as_of=timedelta_ago(hours=1))

    assert [it["id"] for it in listed] == ["digits:2"]
    assert (newest.newest_only, newest.as_of) == (True, PLACE)
    assert sorted(model.version for model in found if model.name == "digits") == [1, 2, 3]
    assert platform.last(pb.ListModelsRequest).model == "digits"


def timedelta_ago(**span: float) -> datetime:
    return datetime.now(UTC) - timedelta(**span)


def test_a_run_tells_its_details_metrics_and_children_as_they_were(platform: Platform) -> None:
    add_run(platform, "exp_1")
    run = Run(Experiment(platform.workspace(), "exp"), "exp_1")

    details = run.get_details_with_logs(as_of="trainyard.jobs/3@17")
    run.get_details(as_of="trainyard.jobs/3@17")
    run.get_metrics(as_of="trainyard.jobs/3@17")
    children = list(run.get_children(as_of="trainyard.jobs/3@17"))
    list(run.get_children(recursive=True, as_of="trainyard.jobs/3@17"))

    assert details["logFiles"] == {"logs/mine": "one\ntwo\n"}
    assert children == []
    asked = [it for it in platform.asked if type(it).__module__ == pb.__name__]
    assert [type(it) for it in asked].count(pb.ReadLogRequest) == 2
    assert {type(it) for it in asked} == {pb.GetRunRequest, pb.ReadLogRequest, pb.GetMetricsRequest, pb.ListRunsRequest}
    assert all(it.as_of == PLACE for it in asked)


def test_runs_of_an_experiment_are_listed_as_they_were_and_as_they_are(platform: Platform) -> None:
    add_run(platform, "exp_1")
    experiment = Experiment(platform.workspace(), "exp")

    assert [run.id for run in experiment.get_runs(as_of="2h")] == ["exp_1"]
    assert platform.last(pb.ListRunsRequest).as_of.HasField("time")
    list(experiment.get_runs())
    assert not platform.last(pb.ListRunsRequest).HasField("as_of")


@pytest.mark.parametrize(
    "given",
    ["2026-01-02T03:04:05", "2026-01-02T04:04:05+01:00", datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))],
)  # fmt: skip
def test_a_time_is_the_same_in_every_way_of_writing_it(given: Any) -> None:
    assert as_of(given).time.ToDatetime(UTC) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_span_is_taken_back_from_now() -> None:
    earliest = timedelta_ago(hours=2)
    found = as_of("2h").time.ToDatetime(UTC)

    assert earliest <= found <= timedelta_ago(hours=2)


@pytest.mark.parametrize(
    "given",
    ["", "yesterday", "99999999999999h", f"{'9' * 5000}d", "trainyard.jobs/x@1", f"t/1@{'9' * 5000}", f"t/{1 << 31}@0", f"t/0@{1 << 63}", 3, b"1h", datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))],
)  # fmt: skip
def test_what_is_no_moment_is_refused_by_the_name_it_was_given_under(given: Any) -> None:
    with pytest.raises(UserErrorException, match="as_of") as caught:
        as_of(given)

    assert caught.value.target == "as_of"
    assert len(str(caught.value)) < 1000
