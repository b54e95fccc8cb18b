import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import stack
from deploy.local.layout import Layout


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[tuple[Layout, int]]:
    """A stack without a supervisor, and a process of it that still runs."""
    layout = Layout(tmp_path, base=29_000)
    words = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"]
    with subprocess.Popen(words, env={"TRAINYARD_SETTINGS": str(layout.settings)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield layout, process.pid
        process.kill()


def test_a_start_beside_processes_that_outlived_their_supervisor_names_them_and_how_to_end_them(orphan: tuple[Layout, int]) -> None:
    layout, pid = orphan

    with pytest.raises(stack.StackError, match=f"pid {pid}.*`make down`"):
        stack.up(layout)


def test_the_status_of_a_stack_without_supervisor_tells_what_still_runs(
    orphan: tuple[Layout, int], capsys: pytest.CaptureFixture[str]
) -> None:
    layout, pid = orphan

    code = stack.status(layout)

    assert code == 1
    assert f"pid {pid}" in capsys.readouterr().out
