"""What a user sees while a run goes on, and what is left when it ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.system.platform import Platform, an_inline_run, names
from trainyard import ActivityFailedException, Dataset, Run
from trainyard._kafka import Events
from trainyard._watch import DRIVER_LOG, log_lines

WAIT_FOR_FILE = """
import os, sys, time
print("begun", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
print("seen", flush=True)
"""


def test_output_is_seen_line_by_line_while_the_script_runs(platform: Platform, tmp_path: Path) -> None:
    platform.pool("running", max_nodes=2)
    go = tmp_path / "go"
    run = platform.submit(tmp_path / "code", WAIT_FOR_FILE, "running", script_params={str(go): ""})
    seen: list[str] = []

    for line in log_lines(Events(platform.layout.kafka_bootstrap), run.id, run._since(), lambda: "seen" not in seen):
        if line.log != DRIVER_LOG:
            continue
        seen.append(line.text)
        if line.text == "begun":
            assert platform.status(run.id) in ("PREPARING", "RUNNING")
            go.touch()

    assert seen == ["begun", "seen"]
    run.wait_for_completion()


def test_outputs_are_captured_with_their_odd_names_and_downloaded_as_they_were(platform: Platform, tmp_path: Path) -> None:
    platform.pool("running", max_nodes=2)
    script = """
import os
os.makedirs("outputs/model", exist_ok=True)
for name in ("-1.index", "a b.txt", "\\u00fc.txt", "model/weights"):
    open(f"outputs/{name}", "w").write(name)
open("logs/mine.txt", "w").write("mine")
"""
    run = platform.submit(tmp_path / "code", script, "running")
    run.wait_for_completion()

    assert run.get_file_names() == [
        *platform.node_logs(run), "logs/mine.txt", "outputs/-1.index", "outputs/a b.txt", "outputs/model/weights", "outputs/ü.txt",
    ]  # fmt: skip
    run.download_files("outputs/", str(tmp_path / "got"))
    assert (tmp_path / "got" / "outputs" / "ü.txt").read_text() == "ü.txt"
    assert (tmp_path / "got" / "outputs" / "model" / "weights").read_text() == "model/weights"


def test_inputs_are_on_the_node_under_their_source_depth(platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]) -> None:
    platform.pool("running", max_nodes=2)
    folder, base = files_over_http
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("A")
    (folder / "b.txt").write_text("B")
    script = """
import glob, json, os, sys
from trainyard import Run
found = sorted(glob.glob(sys.argv[2] + "/**/*.txt", recursive=True))
print(json.dumps([[os.path.relpath(path, sys.argv[2]), open(path).read()] for path in found]))
assert sys.argv[2] == os.environ["pair"] == os.environ["PAIR"] == os.environ["AZUREML_DATAREFERENCE_pair"] == Run.get_context().input_datasets["pair"]
one = os.environ["single"]
assert open(one).read() == "B", one
open(one, "w").write("written")
"""
    pair = Dataset.File.from_files([f"{base}/deep/a.txt", f"{base}/b.txt"]).register(platform.workspace, "a pair", create_new_version=True)
    single = Dataset.File.from_files(f"{base}/b.txt")
    run = platform.submit(
        tmp_path / "code", script, "running",
        script_params={"--data": pair.as_named_input("pair").as_mount()} , inputs=[single.as_named_input("single").as_download()],
    )  # fmt: skip
    run.wait_for_completion()

    details = run.get_details()
    assert details["inputDatasets"][0]["dataset"]["name"] == "a pair"
    materialized = [
        event.message for event in platform.events("trainyard.datasets") if type(event.message).__name__ == "DatasetMaterialized"
    ]
    assert any(message.name == "a pair" and all(file.sha256 for file in message.files) for message in materialized)


def test_a_source_that_changed_under_a_registered_version_is_an_error_and_not_other_data(
    platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]
) -> None:
    platform.pool("running", max_nodes=2)
    folder, base = files_over_http
    (folder / "data.txt").write_text(f"first {time.time_ns()}")
    dataset = Dataset.File.from_files(f"{base}/data.txt").register(platform.workspace, "changing", create_new_version=True)

    (folder / "data.txt").write_text("second")
    run = platform.submit(tmp_path / "code", "print()", "running", inputs=[dataset.as_named_input("data").as_mount()])

    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()
    assert (caught.value.code, caught.value.target) == ("DatasetChanged", f"{base}/data.txt")


def test_a_canceled_run_ends_as_canceled_with_what_it_had_written(platform: Platform, tmp_path: Path) -> None:
    platform.pool("running", max_nodes=2)
    script = "open('outputs/kept', 'w').write('x')\nprint('written')\n" + WAIT_FOR_FILE
    run = platform.submit(tmp_path / "code", script, "running", script_params={"/never": ""})
    platform.until(lambda: any("written" in chunk.lines for chunk in platform.events_of(run.id, "trainyard.logs")), "it has written")

    run.cancel("wrong data")

    assert platform.until_status(run.id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"
    assert "outputs/kept" in run.get_file_names()


def test_a_script_that_ignores_term_is_killed_after_its_grace(platform: Platform, tmp_path: Path) -> None:
    platform.pool("running", max_nodes=2)
    script = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT_FOR_FILE
    run = platform.submit(tmp_path / "code", script, "running", script_params={"/never": ""})
    platform.until(lambda: "begun" in _log(platform, run), "the script has begun")

    run.cancel()

    assert platform.until_status(run.id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def _log(platform: Platform, run: Run) -> list[str]:
    chunks = platform.events_of(run.id, "trainyard.logs")
    return [line for chunk in chunks for line in chunk.lines]


def test_a_time_limit_ends_a_run_and_is_named(platform: Platform, tmp_path: Path) -> None:
    platform.pool("running", max_nodes=2)

    run = platform.submit(tmp_path / "code", WAIT_FOR_FILE, "running", script_params={"/never": ""}, max_run_duration_seconds=1)

    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()
    assert caught.value.code == "TimedOut"


def test_runs_of_one_pool_wait_for_each_other_and_say_why(platform: Platform, tmp_path: Path) -> None:
    platform.pool("narrow", max_nodes=1)
    go = tmp_path / "go"
    first = platform.submit(tmp_path / "one", WAIT_FOR_FILE, "narrow", script_params={str(go): ""})
    platform.until_status(first.id, "RUNNING")

    second = platform.submit(tmp_path / "two", "print()", "narrow")
    told = platform.until(lambda: [it for it in platform.events_of(second.id) if type(it).__name__ == "RunScaling"], "it waits")
    go.touch()

    assert told[0].why.startswith("waits for a free node: all 1 of narrow are busy and 1 is its maximum; taken by run ")
    for run in (first, second):
        assert platform.until_status(run.id, "COMPLETED", "FAILED") == "COMPLETED"


def test_many_runs_at_once_all_complete_and_each_once(platform: Platform) -> None:
    platform.pool("crowd", max_nodes=3)
    ids = [f"crowd-{number}" for number in range(12)]

    threads = [
        threading.Thread(target=platform.jobs.SubmitRun, args=(an_inline_run("crowd", b"print('x')", run_id),))
        for run_id in ids
        for _ in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for run_id in ids:
        assert platform.until_status(run_id, "COMPLETED", "FAILED") == "COMPLETED"
        platform.until(lambda run_id=run_id: "RunCompleted" in names(platform.events_of(run_id)), "its end lies in the log")  # type: ignore[misc]
        assert names(platform.events_of(run_id)).count("RunCompleted") == 1


def test_an_idle_pool_shrinks_to_nothing_and_its_processes_end(platform: Platform) -> None:
    pool = platform.pool("brief", idle_seconds=1)
    platform.jobs.SubmitRun(an_inline_run("brief", b"print()", "brief-1"))
    platform.until_status("brief-1", "COMPLETED")
    node = platform.node_of("brief-1")

    platform.until(lambda: pool.get_status().serialize()["currentNodeCount"] == 0, "the pool is at zero")
    platform.until(lambda: platform.pid(node) == 0, f"{node} has ended")
