"""One MinIO server on loopback."""

import os
import subprocess
from pathlib import Path


def command(binary: Path, home: Path, port: int) -> list[str]:
    # Without a folder of its own for certificates it would make one in the user's home.
    options = ["--quiet", "--certs-dir", str(home / "certs"), "--address", f"127.0.0.1:{port}", "--console-address", "127.0.0.1:0"]
    return [str(binary), "server", *options, str(home / "minio")]


def start(binary: Path, home: Path, port: int, access_key: str, secret_key: str) -> "subprocess.Popen[bytes]":
    """For tests; `up` gives the same command to supervisord."""
    (home / "minio").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
    with (home / "minio.log").open("ab") as log:
        return subprocess.Popen(command(binary, home, port), stdout=log, stderr=log, env=env)
