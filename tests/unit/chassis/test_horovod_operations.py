"""NCCL is chosen where this node can compile for it: its compiler and NCCL's header are both there. No GPU is needed to see that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis.environments.horovod import Recipe, compiling
from services.chassis.environments.horovod.wheel import wheel_key

_RECIPE = Recipe("2.15.1")
_WHERE_THERE_IS_NO_CUDA = pytest.mark.skipif(
    any(Path(it).exists() for it in ("/usr/local/cuda", "/usr/include/nccl.h")), reason="this machine has the real ones"
)


class Node:
    """Nothing on its PATH but what a test puts there."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root, self._monkeypatch = root, monkeypatch
        (root / "bin").mkdir()
        monkeypatch.setenv("PATH", str(root / "bin"))
        for name in ("CUDA_HOME", "HOROVOD_NCCL_HOME"):
            monkeypatch.delenv(name, raising=False)

    def with_nvcc(self) -> Node:
        nvcc = self._root / "bin" / "nvcc"
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
        return self

    def with_header(self, variable: str) -> Node:
        header = self._root / variable / "include" / "nccl.h"
        header.parent.mkdir(parents=True)
        header.write_text("")
        self._monkeypatch.setenv(variable, str(header.parents[1]))
        return self


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    compiling.operations.cache_clear()
    yield Node(tmp_path, monkeypatch)
    compiling.operations.cache_clear()


@pytest.mark.parametrize("variable", ["CUDA_HOME", "HOROVOD_NCCL_HOME"])
def test_with_its_compiler_and_header_the_wheel_is_made_with_nccl(node: Node, variable: str) -> None:
    node.with_nvcc().with_header(variable)

    choices = compiling._choices(_RECIPE, Path("venv"))

    assert compiling.operations() == "NCCL and Gloo"
    assert (choices["HOROVOD_GPU_OPERATIONS"], choices["HOROVOD_CPU_OPERATIONS"]) == ("NCCL", "GLOO")
    assert choices["PATH"].split(os.pathsep)[-1] == os.environ["PATH"], "setup.py looks for nvcc where we found it"


@_WHERE_THERE_IS_NO_CUDA
@pytest.mark.parametrize("has", ["neither", "the compiler alone", "the header alone", "a compiler that nobody may run"])
def test_without_one_of_them_the_wheel_is_made_with_gloo_alone(node: Node, tmp_path: Path, has: str) -> None:
    if "compiler" in has:
        node.with_nvcc()
    if "header" in has or "nobody" in has:
        node.with_header("CUDA_HOME")
    if "nobody" in has:
        (tmp_path / "bin" / "nvcc").chmod(0o644)

    assert compiling.operations() == "Gloo"
    assert "HOROVOD_GPU_OPERATIONS" not in compiling._choices(_RECIPE, Path("venv"))


@_WHERE_THERE_IS_NO_CUDA
def test_a_wheel_with_nccl_is_another_wheel(node: Node) -> None:
    without = wheel_key(_RECIPE)
    compiling.operations.cache_clear()
    node.with_nvcc().with_header("CUDA_HOME")

    assert wheel_key(_RECIPE) != without
