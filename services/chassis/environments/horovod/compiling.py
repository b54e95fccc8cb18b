"""Horovod's source, from the package index by its digest, with our changes, made into a wheel by this node's C++ compiler."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache as once
from pathlib import Path

from services.chassis.environments import uv
from services.chassis.environments.errors import BuildError
from services.chassis.environments.horovod.patching import DoesNotFit, apply
from services.chassis.environments.horovod.recipe import ADDED, SOURCE_SHA256, VERSION, Recipe

# cmake 4 refuses the project's files; setuptools 81 has no pkg_resources.
_TOOLS = ("cmake==3.31.6", "ninja==1.11.1.4", "packaging", "pip", "setuptools<81", "wheel")
_WHAT_FAILED = re.compile(r"(?:fatal )?error: |^CMake Error|No space left|Killed signal|command not found|^ERROR: ")
_MOST_CHARACTERS = 1500


@once
def operations() -> str:
    """Who moves tensors between GPUs: NCCL where this node can compile for it."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    places = [os.environ.get("HOROVOD_NCCL_HOME", ""), os.environ.get("CUDA_HOME", ""), "/usr", "/usr/local/cuda"]
    return "NCCL and Gloo" if nvcc and any(Path(it, "include/nccl.h").exists() for it in places if it) else "Gloo"


def compile_wheel(
    recipe: Recipe,
    scratch: Path,
    cache: Path,
    say: Callable[[str], None],
    deadline: float,
    cancelled: Callable[[], bool],
    held: int,
) -> Path:
    """The wheel, below `scratch`. `held` is a descriptor that the compiler keeps open. Raises BuildError."""
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")):
        raise _failed("this node has no C++ compiler. Install g++, or run once on a node that has one: the wheel then serves all nodes", [])
    venv = scratch / "venv"
    python = str(venv / "bin" / "python")

    def run(argv: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
        lines: list[str] = []

        def hear(line: str) -> None:
            lines.append(line)
            say(line)

        try:
            uv.run(argv, folder=folder, say=hear, deadline=deadline, cancelled=cancelled, held=held, variables=variables or {})
        except BuildError as error:
            raise _failed(_cause(lines), lines) if error.code == "EnvironmentBuildFailed" else error from error

    base = sys._base_executable  # type: ignore[attr-defined]
    run(uv.command(cache / "uv", "venv", "--quiet", "--python", base, "--no-project", str(venv)), scratch)
    numpy = ["numpy<1.24"] if recipe.tensorflow.startswith("2.15.") else []
    wanted = [*_TOOLS, f"tensorflow-cpu=={recipe.tensorflow}", *numpy]
    run(uv.command(cache / "uv", "pip", "install", "--quiet", "--python", python, *wanted), scratch)
    source = _unpacked(_downloaded(python, scratch, run), scratch, recipe)
    say("Compiling; the count is of files.")
    run([python, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(scratch)], source, _choices(recipe, venv))
    return next(scratch.glob("horovod-*.whl"))


def _downloaded(python: str, scratch: Path, run: Callable[..., None]) -> Path:
    wanted = scratch / "source.txt"
    wanted.write_text(f"horovod=={VERSION} --hash=sha256:{SOURCE_SHA256}\n")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes", "--dest", str(scratch))
    # uv's names for what pip is to use as well.
    names = {
        "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
        "UV_INDEX_URL": "PIP_INDEX_URL",
        "UV_FIND_LINKS": "PIP_FIND_LINKS",
        "UV_NO_INDEX": "PIP_NO_INDEX",
    }
    also = {theirs: os.environ[name] for name, theirs in names.items() if name in os.environ and theirs not in os.environ}
    run([python, "-m", "pip", "download", *options, "--requirement", str(wanted)], scratch, also)
    return scratch / f"horovod-{VERSION}.tar.gz"


def _unpacked(archive: Path, scratch: Path, recipe: Recipe) -> Path:
    """Its digest is known, so it is what it was when it was looked at."""
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    root = scratch / f"horovod-{VERSION}"
    shutil.copytree(ADDED, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        for patch in recipe.patches:
            apply(patch.read_text("utf-8"), root)
    except DoesNotFit as error:
        raise _failed(f"a patch does not fit its source: {error}", []) from error
    return root


def _choices(recipe: Recipe, venv: Path) -> Mapping[str, str]:
    nccl = {"HOROVOD_GPU_OPERATIONS": "NCCL"} if operations() != "Gloo" else {}
    intel = {"HOROVOD_BUILD_ARCH_FLAGS": "-mavx -mf16c"} if os.uname().machine == "x86_64" else {}
    return {
        "PATH": os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)]),
        "CMAKE_GENERATOR": "Ninja",
        "HOROVOD_LOCAL_VERSION": recipe.local_version,
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_CPU_OPERATIONS": "GLOO",
        "HOROVOD_WITHOUT_MPI": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        # Of the compiling machine no more is asked of others than TensorFlow asks: Horovod looks before it uses F16C.
        **intel,
        **nccl,
    }


def _cause(lines: Sequence[str]) -> str:
    return next((line.strip() for line in lines if _WHAT_FAILED.search(line)), " ".join(line.strip() for line in lines[-3:]))


def _failed(cause: str, lines: Sequence[str]) -> BuildError:
    message = f"Horovod {VERSION} cannot be compiled on this node: {cause}."
    return BuildError("EnvironmentBuildFailed", message[:_MOST_CHARACTERS], target="horovod", last_lines=lines[-20:])
