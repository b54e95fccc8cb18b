"""The same run through the SDK, through gRPC with only the protos, and through Kafka with only a producer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.system.platform import Platform, an_inline_run, names
from trainyard import Experiment, Run
from trainyard._watch import BUILD_LOG
from trainyard.job.v1 import job_pb2

REPO = Path(__file__).resolve().parents[2]
SCRIPT = "from trainyard import Run\nprint('hello')\nRun.get_context().log('answer', 42)\n"


def example(path: str, *arguments: str) -> str:
    command = [sys.executable, str(REPO / "examples" / path), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_through_the_sdk(platform: Platform, tmp_path: Path) -> None:
    platform.pool("ways", max_nodes=2)

    run = platform.submit(tmp_path / "code", SCRIPT, "ways")
    run.wait_for_completion()

    assert run.get_status() == "Completed"
    assert run.get_metrics() == {"answer": 42.0}
    # The first run of a session builds its environment.
    assert [name for name in run.get_file_names() if name != BUILD_LOG] == platform.node_logs(run)


def test_through_grpc_with_nothing_but_the_protos(platform: Platform) -> None:
    platform.pool("ways", max_nodes=2)

    told = example("grpc_client/submit_run.py", f"127.0.0.1:{platform.layout.service_port('scheduler')}", "ways", "called-1")

    assert told.splitlines()[0].strip() == "called-1"
    assert told.splitlines()[-1].split()[0] == "RUN_STATUS_COMPLETED"


def test_through_kafka_with_nothing_but_a_producer(platform: Platform) -> None:
    platform.pool("ways", max_nodes=2)
    assert len((REPO / "examples/publish_event/publish_submit_run.py").read_text().splitlines()) < 40

    example("publish_event/publish_submit_run.py", platform.layout.kafka_bootstrap, "ways", "published-1")

    platform.until(lambda: platform.events_of("published-1"), "the run is queued")
    assert platform.until_status("published-1", "COMPLETED", "FAILED") == "COMPLETED"
    assert Run(Experiment(platform.workspace, "published"), "published-1").get_metrics() == {"answer": 42.0}


def test_one_submission_id_by_all_three_ways_is_one_run_and_every_answer_names_it(platform: Platform) -> None:
    platform.pool("ways", max_nodes=2)
    request = an_inline_run("ways", SCRIPT.encode(), run_id="mixed-1")

    first = platform.jobs.SubmitRun(request)
    example("publish_event/publish_submit_run.py", platform.layout.kafka_bootstrap, "ways", "mixed-1")
    again = example("grpc_client/submit_run.py", f"127.0.0.1:{platform.layout.service_port('scheduler')}", "ways", "mixed-1")
    clients = platform.workspace._clients
    by_sdk = clients.call(clients.jobs.SubmitRun, request)

    assert (first.run.run_id, first.repeated_submission) == ("mixed-1", False)
    assert again.splitlines()[0] == "mixed-1 (was there already)"
    assert (by_sdk.run.run_id, by_sdk.repeated_submission) == ("mixed-1", True)
    assert by_sdk.run.experiment == "system"
    platform.until_status("mixed-1", "COMPLETED")
    told = names(platform.events_of("mixed-1"))
    assert (told.count("RunQueued"), told.count("RunCompleted")) == (1, 1)


def test_a_call_without_an_id_gets_one_from_the_server(platform: Platform) -> None:
    platform.pool("ways", max_nodes=2)

    answers = [platform.jobs.SubmitRun(an_inline_run("ways", b"print()")) for _ in range(2)]

    assert len({answer.run.run_id for answer in answers}) == 2
    for answer in answers:
        assert platform.until_status(answer.run.run_id, "COMPLETED", "FAILED") == "COMPLETED"
    listed = platform.jobs.ListRuns(job_pb2.ListRunsRequest(experiment="system", limit=50)).runs
    assert {answer.run.run_id for answer in answers} <= {run.run_id for run in listed}
