"""Certificates for a test: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    key: Path
    certificate: Path


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = Certificate(folder / f"{name}.key", folder / f"{name}.pem")
        _openssl("req", "-x509", *_new_key(self._own), "-days", "2", "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE")

    @property
    def certificate(self) -> Path:
        return self._own.certificate

    def signed(self, name: str) -> Certificate:
        """For that name, which is reached at localhost and 127.0.0.1."""
        made = Certificate(self._folder / f"{name}.key", self._folder / f"{name}.pem")
        addressed = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
        by_us = ["-CA", str(self._own.certificate), "-CAkey", str(self._own.key)]
        _openssl("req", "-x509", *_new_key(made), "-days", "2", "-subj", f"/CN={name}", *addressed, *by_us)
        return made


def _new_key(certificate: Certificate) -> list[str]:
    return ["-newkey", "rsa:2048", "-nodes", "-keyout", str(certificate.key), "-out", str(certificate.certificate)]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
