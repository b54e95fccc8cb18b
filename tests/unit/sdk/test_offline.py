"""A run without a platform: the same calls, kept in a folder."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainyard import Run, UserErrorException
from trainyard._offline import OfflineRun

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OfflineRun:
    monkeypatch.setenv("TRAINYARD_OFFLINE_DIR", str(tmp_path / "offline"))
    return OfflineRun()


def a_script(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    names = {"PYTHONPATH": str(REPO / "sdk"), "PATH": os.environ["PATH"], **environment}
    begin = "from trainyard import Run\nrun = Run.get_context()\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + text], env=names, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_is_logged_is_printed_as_azure_prints_it(run: OfflineRun, capsys: pytest.CaptureFixture[str]) -> None:
    run.log("loss", 0.5)
    run.log_row("point", x=1)

    assert capsys.readouterr().out.splitlines() == [
        "Attempted to log scalar metric loss:", "0.5", "Attempted to log row metric point:", "{'x': 1}",
    ]  # fmt: skip


def test_metrics_come_back_in_the_shapes_of_a_run_on_the_platform(run: OfflineRun) -> None:
    for value in (0.5, 0.25):
        run.log("loss", value)
    run.log("once", True)
    run.log_row("row", a=1)
    run.log_row("row", a=2)
    run.log_table("table", {"a": [1, 2]})

    assert run.get_metrics() == {"loss": [0.5, 0.25], "once": True, "row": {"a": [1, 2]}, "table": {"a": [1, 2]}}
    assert run.get_metrics("once", recursive=True) == {run.id: {"once": True}}
    assert (run.get_metrics("once", rank="all"), run.get_metrics(rank=1)) == ({0: {"once": True}}, {})


def test_it_has_an_experiment_and_azures_id(run: OfflineRun) -> None:
    assert run.id.startswith("OfflineRun_") and run.run_id == run.id
    assert run.experiment.name == "offline"


def test_tags_and_properties_follow_the_same_rules(run: OfflineRun) -> None:
    run.tag("a")
    run.set_tags({"b": 1})
    run.remove_tags(["a"])
    run.add_properties({"p": 1})
    run.add_properties({"p": 1})

    with pytest.raises(UserErrorException, match="never changes"):
        run.add_properties({"p": 2})
    with pytest.raises(UserErrorException, match="at most 50"):
        run.set_tags({str(number): "" for number in range(50)})
    assert (run.get_tags(), run.get_properties()) == ({"b": "1"}, {"p": "1"})


def test_files_are_kept_below_its_folder_and_never_change(run: OfflineRun, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "a").write_text("A")
    run.upload_folder("kept", tmp_path / "folder")
    run.upload_file("b", io.BytesIO(b"B"))

    with pytest.raises(UserErrorException, match="already"):
        run.upload_file("b", io.BytesIO(b"C"))
    with pytest.raises(UserErrorException, match="no safe relative path"):
        run.upload_file("../b", io.BytesIO(b"C"))
    assert run.get_file_names() == ["b", "kept/deep/a"]
    assert (run.folder / "files" / "kept" / "deep" / "a").read_text() == "A"
    assert (run.folder / "files" / "b").read_bytes() == b"B"


def test_an_image_is_kept_and_named_by_its_metric(run: OfflineRun) -> None:
    class Plot:
        def savefig(self, file: Any, format: str) -> None:
            file.write(b"picture")

    run.log_image("plot", plot=Plot())

    (file,) = run.get_file_names()
    assert run.get_metrics() == {"plot": f"aml://artifactId/ExperimentRun/dcid.{run.id}/{file}"}


def test_children_and_ends(run: OfflineRun) -> None:
    first, second = run.create_children(tag_key="lr", tag_values=[0.1, 0.2])
    with pytest.raises(ValueError, match="boom"), first:
        raise ValueError("boom")
    with second:
        second.log("x", 1)
    run.complete()
    run.fail("too late")

    assert first.parent is run and [child.get_tags() for child in (first, second)] == [{"lr": "0.1"}, {"lr": "0.2"}]
    assert [it.get_status() for it in (run, first, second)] == ["Completed", "Failed", "Completed"]
    assert first.get_details()["error"]["error"]["message"] == "ValueError: boom"
    assert [it.id for it in run.get_children()] == [second.id, first.id]
    assert [it.id for it in run.get_children(tags={"lr": 0.1}, status="Failed")] == [first.id]
    assert list(run.get_children(properties="none")) == []
    assert run.get_metrics(recursive=True) == {run.id: {}, first.id: {}, second.id: {"x": 1}}


def test_it_has_whatever_a_submitted_run_has() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    # How a submitted run is found again; and the parent, which each of these has from its beginning.
    assert public(Run) - public(OfflineRun) == {"get", "get_context", "get_submitted_run", "parent"}
    assert OfflineRun().parent is None


def test_its_files_come_back_as_copies(run: OfflineRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run.upload_file("outputs/deep/a.txt", io.BytesIO(b"A"))
    run.upload_file("b.txt", io.BytesIO(b"B"))

    run.download_file("b.txt")
    run.download_files("outputs/", "there", append_prefix=False)

    assert (tmp_path / "b.txt").read_bytes() + (tmp_path / "there" / "deep" / "a.txt").read_bytes() == b"BA"
    with pytest.raises(UserErrorException, match=r"its files are: b.txt, outputs/deep/a.txt"):
        run.download_file("nothing")


def test_a_childs_folder_of_outputs_is_refused_in_words(run: OfflineRun) -> None:
    with pytest.raises(UserErrorException, match="no folder of its own") as caught:
        run.child_run(outputs="there")
    assert "upload_folder" in str(caught.value)


def test_a_child_has_its_name_and_its_own_children(run: OfflineRun) -> None:
    child = run.child_run("first")
    grandchild = child.child_run()

    (found,) = run.get_children()
    assert (found.display_name, found.parent) == ("first", run)
    assert [it.id for it in run.get_children(recursive=True)] == [child.id, grandchild.id]
    assert grandchild.display_name == grandchild.id
    assert run.get_detailed_status() == {"status": "Running", "details": "", "position": None}
    with pytest.raises(UserErrorException, match="no snapshot"):
        run.restore_snapshot()


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    result = a_script("for n in range(100): run.log('x', n)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path)

    (file,) = tmp_path.glob("azureml-offline/OfflineRun_*/run.jsonl")
    assert result.returncode == -9
    assert [json.loads(line)["metric"][2] for line in file.read_text().splitlines()] == list(range(100))


def test_a_line_that_a_crash_has_cut_hides_no_other(run: OfflineRun) -> None:
    run.log("x", 1)
    with (run.folder / "run.jsonl").open("a") as file:
        file.write('{"metric": ["x", "sca')
    again = OfflineRun()
    again.folder = run.folder

    assert again.get_metrics() == {"x": 1}


def test_forked_processes_log_to_the_same_run(tmp_path: Path) -> None:
    result = a_script(
        """
import multiprocessing
def work(n): run.log('x', n)
context = multiprocessing.get_context('fork')
those = [context.Process(target=work, args=(n,)) for n in range(4)]
for it in those: it.start()
for it in those: it.join()
print(sorted(run.get_metrics()['x']))
""",
        tmp_path,
    )

    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "[0, 1, 2, 3]"), result.stderr


def test_a_folder_that_cannot_be_made_costs_one_line_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = a_script("run.log('x', 1); run.log('x', 2); print(run.get_metrics())", tmp_path, TRAINYARD_OFFLINE_DIR=str(tmp_path / "file"))

    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "{'x': [1, 2]}")
    assert len(result.stderr.splitlines()) == 1 and "in memory only" in result.stderr


def test_a_model_cannot_be_registered_and_it_is_said_why(run: OfflineRun) -> None:
    with pytest.raises(UserErrorException, match="there is no platform"):
        run.register_model("m", "outputs")


def test_the_client_class_gives_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainyard import _context

    monkeypatch.delenv("TRAINYARD_RUN_SOCKET", raising=False)
    monkeypatch.setattr(_context, "_current", None)

    assert isinstance(Run.get_context(), OfflineRun)


def test_no_offline_run_is_given_to_who_does_not_allow_one_also_after_somebody_did(tmp_path: Path) -> None:
    result = a_script("Run.get_context(allow_offline=False)", tmp_path)

    assert "RunEnvironmentException: This script is not part of a submitted run" in result.stderr


def test_its_workspace_is_the_one_that_config_json_names(run: OfflineRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"workspace_name": "yard", "trainyard": {"services": {}}}))
    monkeypatch.setenv("TRAINYARD_CONFIG", str(tmp_path / "config.json"))

    assert run.experiment.workspace.name == "yard"
    assert run.experiment.workspace is run.experiment.workspace


@pytest.mark.security
def test_a_file_of_an_offline_run_in_a_folder_that_cannot_be_written_is_refused_with_a_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("a file, and no folder")
    monkeypatch.setenv("TRAINYARD_OFFLINE_DIR", str(tmp_path / "taken"))
    run = OfflineRun()
    run.log("loss", 0.5)

    with pytest.raises(UserErrorException, match="cannot be written") as caught:
        run.upload_file("logs/a", str(tmp_path / "taken"))

    assert caught.value.target == "logs/a" and run.get_metrics() == {"loss": 0.5}
