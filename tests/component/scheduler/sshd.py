"""A real sshd on loopback, with keys and homes of its own: nothing of the system's configuration is read or written."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import await_port, free_port

SSHD = "/usr/sbin/sshd"


def missing() -> str:
    """Why there can be none here; "" if there can."""
    if not (Path(SSHD).exists() and shutil.which("ssh") and shutil.which("ssh-keygen")):
        return "openssh-server is not installed: apt-get install openssh-server"
    return "" if os.getuid() == 0 else "sshd without root needs a privilege separation folder that root has made"


class Sshd:
    """Everybody who has the key gets a shell whose home is `home`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.identity, self._host_key = self._key("identity"), self._key("host")
        self.known_hosts = folder / "known_hosts"
        self.know(self._host_key)
        shutil.copy(f"{self.identity}.pub", folder / "authorized_keys")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def know(self, key: Path) -> None:
        """The client trusts the host with that key, and no other."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {Path(f'{key}.pub').read_text()}")

    def know_another(self) -> None:
        self.know(self._key("another"))

    def start(self) -> Sshd:
        # Where root's sshd locks its unprivileged half in; empty, and gone with the next boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self._folder / "sshd_config"
        config.write_text(f"""\
ListenAddress 127.0.0.1:{self.port}
HostKey {self._host_key}
AuthorizedKeysFile {self._folder / "authorized_keys"}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
ForceCommand HOME={self.home} exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
""")
        log = (self._folder / "sshd.log").open("ab")
        self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
        log.close()
        process = self._process
        await_port(self.port, lambda: process.poll() is None)
        return self

    def stop(self) -> None:
        """Sessions that are open go on; new ones are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _key(self, name: str) -> Path:
        path = self._folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, capture_output=True)
        return path
