"""What clients and scripts say of their runs, while the services that keep it are killed, lost and away."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest

from deploy.local import supervision
from deploy.local.stack import is_serving
from tests.system.platform import Platform
from trainyard import Experiment, Run, UserErrorException

pytestmark = pytest.mark.faults

MANY = """
import os
from trainyard import Run
os.makedirs("outputs/many", exist_ok=True)
for number in range(3000):
    open(f"outputs/many/{number}-{'x' * 60}", "w").write(str(number))
child = Run.get_context().child_run("inner")
child.tag("of", "the script")
child.complete()
"""


def test_labels_files_and_children_outlive_kills_and_the_loss_of_the_schedulers_database(platform: Platform) -> None:
    parent = Experiment(platform.workspace, "told").start_logging(outputs=None, snapshot_directory=None)
    done = threading.Event()

    def kill() -> None:
        for service in ("scheduler", "history", "scheduler"):
            platform.kill_and_wait(service)
        done.set()

    killer = threading.Thread(target=kill)
    killer.start()
    said = 0
    children = []
    while not done.is_set() or said < 5:
        parent.tag(f"t{said % 40}", str(said))
        parent.upload_file(f"f{said}", io.BytesIO(str(said).encode()))
        if said < 5:
            children.append(parent.child_run(f"c{said}"))
            children[-1].add_properties({"made": str(said)})
        said += 1
    killer.join()
    children[0].complete()
    platform.lose_the_database_of("scheduler")
    children[0].upload_file("late", io.BytesIO(b"late"))
    with pytest.raises(UserErrorException):
        children[0].upload_file("late", io.BytesIO(b"other"))
    again = Run.get(platform.workspace, parent.id)
    next_child = again.child_run("after")
    parent.complete()
    platform.lose_the_database_of("history")

    told = Run.get(platform.workspace, parent.id)
    assert told.get_status() == "Completed"
    assert told.get_tags()["t0"] == str((said - 1) // 40 * 40)
    assert sorted(told.get_file_names()) == sorted(f"f{number}" for number in range(said))
    assert [child.id for child in told.get_children()] == [it.id for it in (next_child, *reversed(children))]
    assert {child.get_status() for child in told.get_children()} == {"Completed"}
    assert [it.get_properties()["made"] for it in reversed(list(told.get_children())) if it.id != next_child.id] == list("01234")
    assert Run.get(platform.workspace, children[0].id).get_file_names() == ["late"]
    assert next_child.number == parent.number + 6


def test_a_list_of_outputs_in_the_object_store_is_whole_after_kills_and_its_files_never_change(platform: Platform, tmp_path: Path) -> None:
    platform.pool("told", max_nodes=2)
    run = platform.submit(tmp_path / "code", MANY, "told")
    platform.until_status(run.id, "FINALIZING", "COMPLETED")
    platform.kill_and_wait("scheduler")
    platform.kill_and_wait("history")
    details = run.wait_for_completion()
    platform.lose_the_database_of("scheduler")
    late = Run.get(platform.workspace, run.id)

    late.upload_file("late", io.BytesIO(b"late"))
    with pytest.raises(UserErrorException, match="never change"):
        late.upload_file(f"outputs/many/7-{'x' * 60}", io.BytesIO(b"other"))

    names = late.get_file_names()
    assert details["status"] == "Completed"
    assert len([name for name in names if name.startswith("outputs/many/")]) == 3000 and "late" in names
    assert [(child.display_name, child.get_tags()["of"]) for child in late.get_children()] == [("inner", "the script")]


def test_waiting_for_a_run_needs_no_history(platform: Platform, tmp_path: Path) -> None:
    platform.pool("told", max_nodes=2)
    supervision.call(platform.layout, lambda rpc: rpc.stopProcess("history"))
    try:
        run = platform.submit(tmp_path / "code", "print('done')", "told")
        details = run.wait_for_completion()
    finally:
        supervision.call(platform.layout, lambda rpc: rpc.startProcess("history"))
    platform.until(lambda: is_serving(platform.layout.service_port("history")), "history is back")

    assert (details["status"], details["logFiles"]) == ("Completed", {})
    assert "history" in details["warnings"][-1]["message"]
    assert list(run.get_details()["logFiles"]) == platform.node_logs(run)
