"""Children that end with whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.component, pytest.mark.timeout(60)]
REPO = Path(__file__).resolve().parents[3]
TOLD = "import os, signal, sys; from services.parent import die_with; "


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", TOLD + code, *arguments], stdout=subprocess.PIPE, text=True, cwd=REPO)


def test_a_parent_that_was_gone_already_is_noticed() -> None:
    """The one that is named is not the one that we have: it died between our start and our wish."""
    with started("die_with(int(sys.argv[1])); print('lives on')", str(os.getppid())) as child:
        assert child.stdout is not None
        said = child.stdout.read()

    assert (child.returncode, said) == (1, "")


@pytest.mark.parametrize("by", ["SIGKILL", "SIGTERM"])
def test_whoever_kills_the_parent_ends_the_child_by_the_signal_that_it_chose(by: str) -> None:
    """Between fork and exec, as the agent's children do it. The pipe ends when the last process that writes to it has ended."""
    child = "import signal; print('up', flush=True); signal.pause()"
    code = (
        "import subprocess; from functools import partial; "
        f"subprocess.Popen([sys.executable, '-c', {child!r}], preexec_fn=partial(die_with, os.getpid(), signal.{by})); signal.pause()"
    )
    with started(code) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.kill()

        assert parent.stdout.read() == ""
