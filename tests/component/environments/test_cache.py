"""The cache of environments on a real disk, with users in other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.chassis.environments import BuildError, Definition, acquire, build, conda, definition, find, probe
from trainyard import _environment_cache as environment_cache

pytestmark = pytest.mark.component
_NONE = definition("none", "", [])
_FUTURE = datetime.now(UTC) + timedelta(days=1)
_HOLDER = """
import sys
from pathlib import Path
from trainyard._environment_cache import hold
held = hold(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_an_environment_in_use_by_another_process_is_never_pruned(tmp_path: Path) -> None:
    build(_NONE, tmp_path, print)
    environment = {**os.environ, "PYTHONPATH": str(Path(environment_cache.__file__).parents[1])}
    user = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path), _NONE.id],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert user.stdout is not None
    assert user.stdout.readline() == "held\n"

    removed, kept = environment_cache.prune(tmp_path, unused_since=_FUTURE)

    assert (removed, [it.id for it in kept]) == ([], [_NONE.id])
    assert [it.in_use for it in environment_cache.cached(tmp_path)] == [True]
    user.kill()
    user.communicate()
    removed, kept = environment_cache.prune(tmp_path, unused_since=_FUTURE)
    assert ([it.id for it in removed], kept) == ([_NONE.id], [])
    assert find(_NONE, tmp_path) is None


def test_only_what_was_not_used_since_then_is_pruned_and_only_what_was_named(tmp_path: Path) -> None:
    build(_NONE, tmp_path, print)

    recent = environment_cache.prune(tmp_path, unused_since=datetime.now(UTC) - timedelta(hours=1))
    other = environment_cache.prune(tmp_path, unused_since=_FUTURE, ids=["other"])

    assert recent == other == ([], [])
    (there,) = environment_cache.cached(tmp_path)
    assert (there.id, there.in_use) == (_NONE.id, False)
    assert there.size_bytes >= there.own_bytes > 0


def test_an_environment_that_was_pruned_is_built_again_for_whoever_acquires_it(tmp_path: Path) -> None:
    _, hold = acquire(_NONE, tmp_path, print)
    hold.release()
    environment_cache.prune(tmp_path, unused_since=_FUTURE)
    assert environment_cache.hold(tmp_path, _NONE.id) is None

    made, hold = acquire(_NONE, tmp_path, print)

    assert not made.was_cached
    assert [it.in_use for it in environment_cache.cached(tmp_path)] == [True]
    hold.release()
    hold.release()
    assert [it.in_use for it in environment_cache.cached(tmp_path)] == [False]


def test_conda_packages_are_made_by_the_nodes_conda_and_pips_added_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool, arguments = tmp_path / "bin" / "micromamba", tmp_path / "arguments"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments}\necho "Linking numpy"\nexec {sys.executable} -m venv --without-pip "$4"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    wanted = Definition(("six==1.17.0",), (), conda.node_python(), ("cudatoolkit=10.0",), ("conda-forge",))
    said: list[str] = []

    made = build(wanted, tmp_path / "cache", said.append)

    assert subprocess.run([made.python, "-c", "import six; print(six.__version__)"], capture_output=True, text=True, check=True).stdout == (
        "1.17.0\n"
    )
    assert arguments.read_text().split() == [
        "create", "--yes", "--prefix", str(made.root), "--override-channels", "--channel", "conda-forge", "cudatoolkit=10.0",
    ]  # fmt: skip
    assert "Linking numpy" in said


def test_a_python_of_the_users_own_is_looked_at_before_it_is_used(tmp_path: Path) -> None:
    found = probe(sys.executable)

    assert (found.python, found.prefix, found.has_azureml) == (Path(sys.executable), Path(sys.prefix), False)
    old, silent = tmp_path / "old", tmp_path / "silent"
    old.write_text("#!/bin/sh\necho '[[3, 6], \"/usr\", false]'\n")
    silent.write_text("#!/bin/sh\n")
    for program in (old, silent):
        program.chmod(0o755)
    for path, why in ((str(old), "it is Python 3.6"), (str(silent), "does not answer"), ("/no/such", "no such"), ("a/b", "absolute")):
        with pytest.raises(BuildError, match=why) as caught:
            probe(path)
        assert (caught.value.code, caught.value.target) == ("UserError", path)
