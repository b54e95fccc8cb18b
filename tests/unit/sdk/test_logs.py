from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from trainyard._errors import PlatformUnavailableException
from trainyard._logs import save, texts, urls
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact
from trainyard.history.v1 import history_pb2 as pb

DRIVER, BUILD = "azureml-logs/70_driver_log.txt", "azureml-logs/20_image_build_log.txt"

BUILT = hashlib.sha256(b"built\n").hexdigest()


def a_workspace(lines: list[str]) -> Any:
    """History knows these lines of any log; the store has the file of the build log."""
    objects = MemoryObjects()
    objects.put_bytes("runs/r/1/build", b"built\n")

    def read(request: pb.ReadLogRequest, timeout: float) -> list[pb.ReadLogResponse]:
        if not lines:
            raise Silent
        own = lines if not request.rank else [f"{line} of rank {request.rank}" for line in lines]
        numbered = list(enumerate(own))[request.first_line :]
        return [pb.ReadLogResponse(lines=[pb.LogLine(number=number, text=text) for number, text in numbered])]

    return SimpleNamespace(_objects=objects, _clients=SimpleNamespace(history=SimpleNamespace(ReadLog=read)))


class Silent(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> tuple[()]:
        return ()


def a_view(count: int) -> pb.RunView:
    view = pb.RunView(
        files=[
            Artifact(path=BUILD, size_bytes=6, sha256=BUILT, object_key="runs/r/1/build"),
            Artifact(path="outputs/model", object_key="runs/r/1/model"),
        ]
    )
    view.run.run_id = "r"
    view.logs.add(log=BUILD, lines=1)
    view.logs.add(log=DRIVER, lines=count)
    return view


def test_an_archived_log_has_a_url_of_the_store_and_a_live_one_its_last_thousand_lines() -> None:
    lines = [f"line {number}" for number in range(1500)]

    found = urls(a_workspace(lines), a_view(len(lines)))

    assert list(found) == [BUILD, DRIVER]
    with urllib.request.urlopen(found[BUILD]) as answer:
        assert answer.read() == b"built\n"
    with urllib.request.urlopen(found[DRIVER]) as answer:
        assert answer.read().decode().splitlines() == lines[500:]


def test_texts_are_whole_wherever_they_lie() -> None:
    assert texts(a_workspace(["one", "zwei ü"]), a_view(2)) == {BUILD: "built\n", DRIVER: "one\nzwei ü\n"}


def test_the_logs_of_all_ranks_are_there_and_a_build_that_each_node_did_is_the_first_ones(tmp_path: Path) -> None:
    view = a_view(1)
    view.logs.add(log="azureml-logs/70_driver_log_1.txt", rank=1, lines=1)
    view.logs.add(log="azureml-logs/65_job_prep.txt", rank=3, lines=1)
    view.logs.add(log="azureml-logs/65_job_prep.txt", rank=1, lines=1)

    found = save(a_workspace(["x"]), view, tmp_path)

    assert found == sorted(str(path) for path in tmp_path.rglob("*.txt"))
    assert {Path(path).name: Path(path).read_text() for path in found} == {
        "20_image_build_log.txt": "built\n",
        "65_job_prep.txt": "x of rank 1\n",
        "70_driver_log.txt": "x\n",
        "70_driver_log_1.txt": "x of rank 1\n",
    }
    assert list(urls(a_workspace(["x"]), view)) == sorted(Path(path).relative_to(tmp_path).as_posix() for path in found)


@pytest.mark.parametrize("read", [urls, texts])
def test_a_history_that_has_begun_to_answer_and_falls_silent_is_waited_for_only_so_long(read: Any) -> None:
    with pytest.raises(PlatformUnavailableException):
        read(a_workspace([]), a_view(1))
