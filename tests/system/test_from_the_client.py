"""What the client does by itself on the whole platform: models from local folders, pools changed, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.platform import Platform
from trainyard import AmlCompute, ComputeTarget, ComputeTargetException, Model, UserErrorException
from trainyard.job.v1.job_pb2 import RunQueued


def trainyard(platform: Platform, *words: str) -> subprocess.CompletedProcess[str]:
    words = ("-m", "trainyard", *words, "--config", str(platform.layout.config))
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_a_local_folder_becomes_a_model_that_downloads_and_is_offered_to_serving(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "local folder"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"no graph")
    (folder / "variables" / "-1.index").write_bytes(bytes(range(256)) * 8000)

    model = Model.register(platform.workspace, folder, "client-local", tags={"a": "b"}, show_progress=False)
    shown = trainyard(platform, "model", "show", "client-local", "--json")
    deployed = trainyard(platform, "model", "deploy", "client-local:1", "client-web", "--wait", "--json")

    assert (model.version, model.run_id) == (1, "")
    assert json.loads(shown.stdout)["files"] == {"local folder/saved_model.pb": 8, "local folder/variables/-1.index": 2_048_000}
    top = Path(model.download(str(tmp_path / "got")))
    assert (top / "variables" / "-1.index").read_bytes() == (folder / "variables" / "-1.index").read_bytes()
    # Serving may read it, and found that it is no SavedModel.
    assert deployed.returncode == 4, deployed
    assert "cannot load" in deployed.stderr
    assert platform.workspace.webservices["client-web"].state == "Failed"


def test_a_poisoned_upload_is_sent_again_and_a_name_that_is_none_is_refused(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"right")
    first = Model.register(platform.workspace, tmp_path / "weights.bin", "client-poisoned", show_progress=False)
    key = first._message.artifacts.files[0].object_key
    platform.workspace._objects.put_bytes(key, b"wrong")

    second = Model.register(platform.workspace, tmp_path / "weights.bin", "client-poisoned", show_progress=False)

    assert (second.version, platform.workspace._objects.get_bytes(key)) == (2, b"right")
    with pytest.raises(UserErrorException, match="no model name"):
        Model.register(platform.workspace, tmp_path / "weights.bin", "client/poisoned", show_progress=False)


def test_a_pool_is_given_other_bounds_and_then_deleted(platform: Platform) -> None:
    wish = AmlCompute.provisioning_configuration("STANDARD_D2_V2", max_nodes=1, idle_seconds_before_scaledown=600)
    pool = ComputeTarget.create(platform.workspace, "client-pool", wish)

    pool.update(max_nodes=3, idle_seconds_before_scaledown=90)
    settings = AmlCompute(platform.workspace, "client-pool").get_status().scale_settings
    pool.delete()
    pool.wait_for_completion(is_delete_operation=True)

    assert (settings.maximum_node_count, settings.idle_seconds_before_scaledown) == (3, 90)
    with pytest.raises(ComputeTargetException):
        AmlCompute(platform.workspace, "client-pool")


def test_doctor_and_status_look_at_the_whole_platform(platform: Platform) -> None:
    doctor, status = trainyard(platform, "doctor", "--json"), trainyard(platform, "status", "--json")

    found = {it["part"]: it for it in map(json.loads, doctor.stdout.splitlines())}
    assert {found[part]["state"] for part in ("kafka", "object store", "topics", "clock", "versions", "scheduler", "registry")} == {"ok"}
    assert {json.loads(line)["state"] for line in status.stdout.splitlines()} == {"ok"}
    assert status.returncode == 0


def test_the_recorded_log_is_run_again_under_another_policy(platform: Platform, tmp_path: Path) -> None:
    platform.pool("client-replay")
    runs = [platform.submit(tmp_path / name, "print('ran')", "client-replay") for name in ("a", "b")]
    for run in runs:
        platform.until_status(run.id, "COMPLETED")
    queued = next(it for it in platform.log.events("trainyard.jobs") if isinstance(it.message, RunQueued) and it.key == runs[0].id)
    (tmp_path / "policy.yaml").write_text("backfill: false\n")
    words = ["--policy", str(tmp_path / "policy.yaml"), "--from", f"{queued.topic}/{queued.partition}@{queued.offset}"]

    told = trainyard(platform, "scheduler", "replay", *words, "--json")

    assert told.returncode == 0, told
    found = json.loads(told.stdout)
    assert found["runs"] >= 2
    assert all(found[column]["runs"]["completed"] >= 2 for column in ("recorded", "replayed", "policy"))
    assert found["difference"]["runs"]["all"] == 0
