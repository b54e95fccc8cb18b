"""Horovod's wheel is compiled once: what the object store has is taken, what it has not is put there, what is garbled is not used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path

import pytest

from services.chassis.environments import BuildError
from services.chassis.environments.errors import BuildCanceled
from services.chassis.environments.horovod import Recipe, Work, compiling, folder_with_wheel, wheel
from services.chassis.environments.horovod.wheel import wheel_key
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects

_RECIPE = Recipe("2.15.1")
_NAME = "horovod-0.28.1+trainyard.x-cp311-cp311-linux_x86_64.whl"


class Compiler:
    """Stands in for minutes of g++."""

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, recipe: Recipe, scratch: Path, *_: object) -> Path:
        self.count += 1
        self.begun.set()
        assert self.gate.wait(60)
        made = scratch / _NAME
        made.write_bytes(b"a wheel")
        return made


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(wheel, "compile_wheel", made)
    return made


def _work(said: list[str]) -> Work:
    return Work(said.append, inf, lambda: False)


def test_what_one_node_compiles_another_takes_from_the_object_store(compiler: Compiler, tmp_path: Path) -> None:
    objects, said = MemoryObjects(), list[str]()

    first = folder_with_wheel(_RECIPE, tmp_path / "a", objects, _work(said))
    other = folder_with_wheel(_RECIPE, tmp_path / "b", objects, _work(said))
    again = folder_with_wheel(_RECIPE, tmp_path / "b", objects, _work(said))

    assert compiler.count == 1
    assert (first / _NAME).read_bytes() == (other / _NAME).read_bytes() == b"a wheel"
    assert again == other
    assert said[-1] == f"Horovod's wheel came from the object store: {_NAME}."


def test_two_of_one_node_compile_it_once(compiler: Compiler, tmp_path: Path) -> None:
    compiler.gate.clear()

    class Said(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line.startswith("Another process compiles"):
                compiler.gate.set()

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: folder_with_wheel(_RECIPE, tmp_path, None, _work(Said())), range(2)))

    assert compiler.count == 1
    assert both[0] == both[1]


@pytest.mark.parametrize("garbled", [b"", b"a whee", b"another"])
def test_a_garbled_wheel_in_the_object_store_is_not_used(compiler: Compiler, tmp_path: Path, garbled: bytes) -> None:
    objects, said = MemoryObjects(), list[str]()
    folder_with_wheel(_RECIPE, tmp_path / "a", objects, _work(said))
    (key,) = objects.list("wheels/")
    objects.put_bytes(key, garbled)

    folder = folder_with_wheel(_RECIPE, tmp_path / "b", objects, _work(said))

    assert compiler.count == 2
    assert [it.name for it in folder.iterdir()] == [_NAME]
    assert (folder / _NAME).read_bytes() == objects.get_bytes(key) == b"a wheel"


def test_a_store_that_is_away_costs_a_compilation_and_is_told(compiler: Compiler, tmp_path: Path) -> None:
    class Away(MemoryObjects):
        def entries(self, prefix: str) -> object:  # type: ignore[override]
            raise PlatformUnavailableException("The object store does not answer.")

        list = entries  # type: ignore[assignment]

        def put_file(self, key: str, path: Path) -> None:
            raise PlatformUnavailableException("The object store does not answer.")

    said: list[str] = []

    folder = folder_with_wheel(_RECIPE, tmp_path, Away(), _work(said))

    assert (folder / _NAME).exists()
    assert "stays on this node alone" in said[-1]


def test_what_a_killed_builder_left_is_swept(compiler: Compiler, tmp_path: Path) -> None:
    left = tmp_path / "wheels" / f"{wheel_key(_RECIPE)[:12]}-left"
    left.mkdir(parents=True)

    folder_with_wheel(_RECIPE, tmp_path, None, _work([]))

    assert not left.exists()


def test_who_waits_for_the_compiler_of_another_can_be_canceled(compiler: Compiler, tmp_path: Path) -> None:
    compiler.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(folder_with_wheel, _RECIPE, tmp_path, None, _work([]))
        assert compiler.begun.wait(60)

        try:
            with pytest.raises(BuildCanceled):
                folder_with_wheel(_RECIPE, tmp_path, None, Work(print, inf, lambda: True))
        finally:
            compiler.gate.set()

        assert (first.result() / _NAME).exists()


def test_a_node_without_a_compiler_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BuildError, match=r"no C\+\+ compiler\. Install g\+\+") as caught:
        folder_with_wheel(_RECIPE, tmp_path, None, _work([]))

    assert caught.value.target == "horovod"
    assert caught.value.code == "EnvironmentBuildFailed"


def test_the_first_error_of_the_compiler_is_the_cause_that_is_named() -> None:
    lines = [
        "[1/66] Building",
        "a.cc:1:10: fatal error: tensorflow/x.h: No such file or directory",
        "ninja: build stopped",
        "error: Command failed",
    ]

    assert compiling._cause(lines) == lines[1]
