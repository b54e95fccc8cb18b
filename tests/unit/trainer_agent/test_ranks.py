from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from services.trainer_agent.adapters import ranks
from services.trainer_agent.adapters.leftovers import MARK, end_leftovers
from services.trainer_agent.adapters.ranks import RankProcess

_LEAVES_A_CHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(child.pid)
"""


class Output:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, lines: Iterable[str]) -> None:
        self.lines += lines


class FullDisk(Output):
    def write(self, lines: Iterable[str]) -> None:
        raise OSError(28, "No space left on device")


async def started(script: str, folder: Path, output: Output, **environment: str) -> RankProcess:
    return await RankProcess.start([sys.executable, "-c", script], {**os.environ, **environment}, folder, output)  # type: ignore[arg-type]


async def test_a_script_says_what_it_says_and_ends_with_its_code(tmp_path: Path) -> None:
    output = Output()

    process = await started("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path, output)

    assert await asyncio.wait_for(process.wait(), 30) == 3
    assert sorted(output.lines) == ["err", "out"]


async def test_a_script_has_ended_though_its_child_still_holds_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_PIPE_PATIENCE_SECONDS", 0.1)
    output, mark = Output(), str(tmp_path)

    process = await started(_LEAVES_A_CHILD, tmp_path, output, **{MARK: mark})

    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert len(output.lines) == 1
    end_leftovers(mark)


async def test_a_script_whose_child_holds_its_output_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_PIPE_PATIENCE_SECONDS", 0.1)
    output, mark = Output(), str(tmp_path)

    process = await started(_LEAVES_A_CHILD + "import time; time.sleep(600)", tmp_path, output, **{MARK: mark})
    await asyncio.wait_for(process.stop(grace_seconds=5), 30)

    assert await asyncio.wait_for(process.wait(), 30) == -15
    end_leftovers(mark)


async def test_a_script_whose_output_cannot_be_kept_is_ended(tmp_path: Path) -> None:
    process = await started("while True: print('x' * 1000)", tmp_path, FullDisk())

    with pytest.raises(OSError, match="No space left"):
        await asyncio.wait_for(process.wait(), 30)


async def test_what_outlives_its_attempt_is_ended_and_other_attempts_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_PIPE_PATIENCE_SECONDS", 0.1)
    outputs = {"1": Output(), "2": Output()}
    for epoch, output in outputs.items():
        process = await started(_LEAVES_A_CHILD, tmp_path, output, **{MARK: str(tmp_path), "TRAINYARD_EPOCH": epoch})
        await asyncio.wait_for(process.wait(), 30)
    first, second = (psutil.Process(int(output.lines[0])) for output in outputs.values())

    assert end_leftovers(str(tmp_path), {"TRAINYARD_EPOCH": "1"}) == 1

    psutil.wait_procs([first], timeout=10)
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE
    assert second.is_running()
    end_leftovers(str(tmp_path))
