"""Makes the parts that PyPI wheels do not carry: Kafka's jars, the MinIO server, and the Python code of the protos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from deploy.local import cache, protos
from deploy.local.console import step

REPO = Path(__file__).resolve().parents[2]


class AssemblyError(Exception):
    """A tool failed; carries the end of what it printed."""


def setup() -> None:
    """Everything that a run needs and that is kept between runs. Cheap when nothing is missing."""
    if not protos.is_fresh():
        with step("generating code from protos/"):
            protos.generate(_virtual_environment("protoc"))
    kafka()
    minio()


def descriptors() -> bytes:
    """Our protos with their comments, as one FileDescriptorSet."""
    return protos.describe(_virtual_environment("protoc"))


def kafka() -> Path:
    def make(folder: Path) -> None:
        tools = _virtual_environment("buildtools")
        with step("fetching Kafka's jars", "about 20 seconds, once"):
            endpoint = cache.pin("kafka")
            words = [
                "--ignore-config",
                "--resolver",
                "python",
                "--repo-cache",
                folder / "m2",
                "--cache-dir",
                folder / "jgo",
                "--links",
                "hard",
            ]
            _run([tools / "bin" / "jgo", *words, "--timeout", "120", "info", "envdir", endpoint], COLOR="plain")
            made = next(path.parent for path in (folder / "jgo").rglob("jars") if path.is_dir())
            for name in ("jars", "modules"):
                (made / name).rename(folder / name)
            for scratch in ("m2", "jgo"):
                shutil.rmtree(folder / scratch)

    return cache.build("kafka", make)


def minio() -> Path:
    def make(folder: Path) -> None:
        tools = _virtual_environment("buildtools")
        # Kept when a build breaks off, so that the next one goes on from there; two gigabytes, so not kept after success.
        scratch = cache.root() / "go"
        with step("building the MinIO server", "2 to 5 minutes, once"):
            go = [tools / "bin" / "go", "install", "-trimpath", "-ldflags", "-s -w", cache.pin("minio")]
            flags = {"GOPATH": scratch / "path", "GOCACHE": scratch / "cache", "GOBIN": folder, "GOFLAGS": "-modcacherw"}
            # Go keeps counters of its own use in the home folder.
            _run(go, **flags, HOME=scratch, GOTOOLCHAIN="local", CGO_ENABLED="0", GOENV="off")
        shutil.rmtree(scratch, ignore_errors=True)

    return cache.build("minio", make)


def tools(name: str) -> Path:
    """The virtual environment of requirements/<name>.txt, made if it is not there."""
    return _virtual_environment(name)


def _virtual_environment(name: str) -> Path:
    """An environment from requirements/<name>.txt, for tools that must not meet the platform's own packages."""

    def make(folder: Path) -> None:
        with step(f"installing {name}.txt"):
            # Scripts name their interpreter by its path: made under a passing name they would not start.
            home = cache.folder(name) / "venv"
            venv.create(home, with_pip=True, symlinks=True)
            try:
                words = ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps"]
                _run([home / "bin" / "python", "-m", "pip", *words, "-r", REPO / "requirements" / f"{name}.txt"])
                home.rename(folder / "venv")
            finally:
                shutil.rmtree(cache.folder(name), ignore_errors=True)

    return cache.build(name, make) / "venv"


def _run(words: list[object], **environment: object) -> None:
    result = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        tail = "\n".join(f"  | {line}" for line in result.stdout.strip().splitlines()[-15:])
        raise AssemblyError(f"{' '.join(str(word) for word in words[:4])} ... ended with {result.returncode}:\n{tail}")


def main() -> int:
    try:
        setup()
    except (AssemblyError, OSError) as error:
        print(f"setup failed: {error}\nRun it again: it goes on where it stopped.", file=sys.stderr)
        return 1
    return 0
