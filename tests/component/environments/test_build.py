"""Environments built by the real uv. A package of the tests' own, whose build waits at a gate, stands for a long build."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from services.chassis.environments import BuildCanceled, BuildError, Definition, Environment, build, definition, find, uv

pytestmark = pytest.mark.component
_NONE = definition("none", "", [])
_GATED = definition("none", "", ["trainyard-gated==1.0"])
# A build backend that needs nothing: it tells its process id, then waits until somebody opens the gate.
_BACKEND = """
import os, pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    pathlib.Path({arrivals!r}).write_text(str(os.getpid()))
    print("the gated build began", flush=True)
    open({gate!r}).read()
    name = "trainyard_gated-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("trainyard_gated.py", "opened = True\\n")
        wheel.writestr("trainyard_gated-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: trainyard-gated\\nVersion: 1.0\\n")
        wheel.writestr("trainyard_gated-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("trainyard_gated-1.0.dist-info/RECORD", "")
    return name
"""
_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "trainyard-gated"
version = "1.0"
"""


@dataclass
class Gate:
    """Where the build of `trainyard-gated` waits."""

    path: Path
    arrivals: int  # a descriptor: the process ids of builds that have come to the gate

    def open(self) -> None:
        """Returns at once; the build goes on as soon as it is at the gate."""
        threading.Thread(target=lambda: self.path.open("w").close(), daemon=True).start()

    def arrival(self) -> int:
        """Waits for a build to come to the gate; its process id."""
        return int(os.read(self.arrivals, 100))


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    path, arrivals = tmp_path / "gate", tmp_path / "arrivals"
    os.mkfifo(path)
    os.mkfifo(arrivals)
    made = Gate(path, os.open(arrivals, os.O_RDWR))
    source, links = tmp_path / "trainyard_gated-1.0", tmp_path / "links"
    source.mkdir()
    links.mkdir()
    (source / "pyproject.toml").write_text(_PROJECT)
    (source / "backend.py").write_text(_BACKEND.format(arrivals=str(arrivals), gate=str(path)))
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: trainyard-gated\nVersion: 1.0\n")
    with tarfile.open(links / "trainyard_gated-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    yield made
    os.close(made.arrivals)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _build_there(what: Definition, cache: Path, pipe: Connection) -> None:
    made = build(what, cache, lambda line: pipe.send(line))
    pipe.send(made)


class Builder:
    """Another process that builds."""

    def __init__(self, what: Definition, cache: Path) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=_build_there, args=(what, cache, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def says(self, part: str) -> None:
        """Waits for a line that has the part in it."""
        while part not in str(self._pipe.recv()):
            pass

    def made(self) -> Environment:
        while not isinstance(answer := self._pipe.recv(), Environment):
            pass
        self.process.join(10)
        return answer


def _gone(pid: int) -> bool:
    """Dead, or dead and not yet collected by whoever inherited it."""
    try:
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            process.wait(10)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        return not psutil.pid_exists(pid)
    return True


def _python(environment: Environment, code: str) -> str:
    return subprocess.run([environment.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_an_environment_without_packages_is_built_once_and_found_afterwards(cache: Path) -> None:
    assert find(_NONE, cache) is None

    made = build(_NONE, cache, print)
    again = build(_NONE, cache, print)

    assert not made.was_cached
    assert again == find(_NONE, cache)
    assert again.was_cached
    assert again.root == made.root == cache / "environments" / _NONE.id
    assert _python(made, "import sys; print(sys.prefix)") == str(made.root)
    assert _python(made, "import importlib.metadata as it; print([each.name for each in it.distributions()])") == "[]"


def test_packages_of_the_index_are_installed_and_compiled(cache: Path) -> None:
    made = build(definition("none", "", ["six==1.17.0"]), cache, print)

    assert _python(made, "import six; print(six.__version__)") == "1.17.0"
    assert list(made.root.rglob("six.*.pyc"))
    assert (cache / "uv").is_dir()


def test_a_package_that_does_not_exist_is_named_with_uvs_reason(cache: Path) -> None:
    wanted = definition("none", "", ["six", "trainyard-no-such-package-7d0b1c>=3"])
    said: list[str] = []

    with pytest.raises(BuildError) as caught:
        build(wanted, cache, said.append)

    assert caught.value.code == "EnvironmentBuildFailed"
    assert caught.value.target == "trainyard-no-such-package-7d0b1c"
    assert "trainyard-no-such-package-7d0b1c was not found" in caught.value.message
    assert caught.value.last_lines
    assert set(caught.value.last_lines) <= set(said)
    assert find(wanted, cache) is None
    assert not (cache / "environments" / wanted.id).exists()


def test_packages_that_contradict_the_frameworks_line_are_refused_with_the_reason(cache: Path) -> None:
    wanted = definition("tensorflow", "2.4", ["numpy>=2"])

    with pytest.raises(BuildError, match=r"numpy") as caught:
        build(wanted, cache, print)

    assert caught.value.code == "EnvironmentBuildFailed"


def test_a_line_is_told_as_it_is_written_and_not_at_the_end(cache: Path, gate: Gate) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "Building trainyard-gated" in line:
            gate.open()  # without this the build would wait until its deadline

    made = build(_GATED, cache, say, deadline_seconds=60)

    assert _python(made, "import trainyard_gated; print(trainyard_gated.opened)") == "True"
    assert said[0].startswith(f"Building environment {_GATED.id}, which is not in the cache: trainyard-gated==1.0")
    assert said[-1].startswith(f"Built environment {_GATED.id} in ")
    assert not any("\x1b" in line or "\n" in line for line in said)


def test_of_two_builders_at_once_one_builds_and_the_other_waits_and_finds_it(cache: Path, gate: Gate) -> None:
    first = Builder(_GATED, cache)
    first.says("Building trainyard-gated")

    second = Builder(_GATED, cache)
    second.says(f"Another process builds environment {_GATED.id}")
    gate.open()

    assert not first.made().was_cached
    assert second.made().was_cached


def test_what_a_killed_builder_left_is_never_used_and_never_built_beside(cache: Path, gate: Gate) -> None:
    killed = Builder(_GATED, cache)
    killed.says("Building trainyard-gated")
    killed.process.kill()
    killed.process.join(10)
    assert find(_GATED, cache) is None

    # Its uv lives on, and holds the lock until it is through.
    second = Builder(_GATED, cache)
    second.says(f"Another process builds environment {_GATED.id}")
    gate.open()

    made = second.made()
    assert not made.was_cached
    assert _python(made, "import trainyard_gated; print(trainyard_gated.opened)") == "True"


def test_a_half_built_folder_is_swept_and_built_anew(cache: Path) -> None:
    half = cache / "environments" / _NONE.id
    (half / "lib").mkdir(parents=True)
    (half / "lib" / "left-over").touch()
    assert find(_NONE, cache) is None

    made = build(_NONE, cache, print)

    assert not made.was_cached
    assert not (half / "lib" / "left-over").exists()


def test_a_canceled_build_takes_its_whole_process_group_along(cache: Path, gate: Gate) -> None:
    builds: list[int] = []

    def say(line: str) -> None:
        if "Building trainyard-gated" in line:
            builds.append(gate.arrival())

    with pytest.raises(BuildCanceled) as caught:
        build(_GATED, cache, say, cancelled=lambda: bool(builds))

    assert caught.value.code == "Canceled"
    assert _gone(builds[0])
    assert not (cache / "environments" / _GATED.id).exists()


def test_a_build_past_its_deadline_takes_its_whole_process_group_along(cache: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[int] = []

    def say(line: str) -> None:
        if "Building trainyard-gated" in line:
            builds.append(gate.arrival())

    monkeypatch.setattr(uv, "time", SimpleNamespace(monotonic=lambda: inf if builds else 0.0))
    with pytest.raises(BuildError) as caught:
        build(_GATED, cache, say, deadline_seconds=1800)

    assert caught.value.code == "EnvironmentBuildTimedOut"
    assert "Its steps: making the virtual environment " in caught.value.message
    assert "(last: Building trainyard-gated==1.0)" in caught.value.message
    assert "   Building trainyard-gated==1.0" in caught.value.last_lines
    assert _gone(builds[0])
    assert not (cache / "environments" / _GATED.id).exists()


def test_who_waits_for_another_builder_can_be_canceled_too(cache: Path, gate: Gate) -> None:
    first = Builder(_GATED, cache)
    first.says("Building trainyard-gated")
    said: list[str] = []

    with pytest.raises(BuildCanceled):
        build(_GATED, cache, said.append, cancelled=lambda: bool(said))
    gate.open()

    assert said == [f"Another process builds environment {_GATED.id}; waiting for it."]
    assert not first.made().was_cached
