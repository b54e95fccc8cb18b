"""The folder of certificates and keys: who may look into it, and what leaves it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from services.serving.adapters import endpoint_certificates
from services.serving.adapters.endpoint_certificates import EndpointCertificates
from services.serving.domain.endpoint import Deployment, Endpoint, Second
from services.serving.ports import CannotServe
from trainyard.endpoint.v1.endpoint_pb2 import Tls, TrafficSplit


@pytest.fixture(autouse=True)
def anything_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_certificates, "_check", lambda tls, pem: None)
    monkeypatch.setattr(endpoint_certificates, "_MOST_UNUSED", 2)


def a_tls(number: int) -> Tls:
    return Tls(certificate_pem=f"certificate {number}", cname="h")


def test_a_folder_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    folder.chmod(0o755)

    EndpointCertificates(tmp_path).keep(a_tls(1), "key")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_of_the_keys_that_no_endpoint_uses_the_newest_stay(tmp_path: Path) -> None:
    certificates, used = EndpointCertificates(tmp_path), a_tls(0)

    for number in range(5):
        certificates.keep(a_tls(number), "key", [used])
        for file in (files := certificates.files(a_tls(number))).pem, files.config:
            os.utime(file, (number, number))

    kept = {file.stem for file in (tmp_path / "tls").iterdir()}
    assert len(list((tmp_path / "tls").iterdir())) == 2 * len(kept)
    assert kept == {certificates.files(a_tls(number)).pem.stem for number in (0, 2, 3, 4)}  # the last comes beside the two
    with pytest.raises(CannotServe, match="Deploy again"):
        certificates.files(a_tls(1))


def test_an_endpoint_uses_the_certificates_of_all_its_deployments() -> None:
    latest, serving, second = (Deployment(number, "digits", 1, f"s-{number}", tls=a_tls(number)) for number in (3, 1, 2))

    assert Endpoint("digits", latest, serving=serving, second=Second(second, TrafficSplit())).certificates == [a_tls(3), a_tls(1), a_tls(2)]
    assert Endpoint("digits", Deployment(1, "digits", 1, "s")).certificates == []
