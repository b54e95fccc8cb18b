"""TLS of an endpoint, as its owner gives it and as a caller trusts it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import grpc

from trainyard._deployment_configuration import DeploymentConfiguration
from trainyard._errors import UserErrorException, WebserviceException

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def secured(clients: Any, wanted: DeploymentConfiguration) -> Any:
    """A Tls for a request, whose key the serving service has taken; an empty one for no TLS any more; None: nothing was said.

    Raises UserErrorException for a file that cannot be read, and WebserviceException where the certificate cannot be used.
    """
    from trainyard.endpoint.v1 import endpoint_pb2

    if wanted.ssl_enabled is None:
        return None
    if not wanted.ssl_enabled:
        return endpoint_pb2.Tls()
    certificate = _text("ssl_cert_pem_file", wanted.ssl_cert_pem_file)
    key = _text("ssl_key_pem_file", wanted.ssl_key_pem_file)
    # The order in which tools write them into one file is no matter; only certificates go into the log.
    certificate = "".join(f"{_BEGIN}{part.partition(_END)[0]}{_END}\n" for part in certificate.split(_BEGIN)[1:])
    request = endpoint_pb2.KeepCertificateRequest(certificate_pem=certificate, key_pem=key, cname=str(wanted.ssl_cname))
    clients.call(clients.endpoints.KeepCertificate, request, WebserviceException)
    return endpoint_pb2.Tls(certificate_pem=certificate, cname=str(wanted.ssl_cname))


def trusting(certificate: str) -> ssl.SSLContext:
    """For a client: whom the system trusts, and the server with that certificate (PEM), whoever signed it."""
    context = ssl.create_default_context()
    if certificate:
        context.load_verify_locations(cadata=_leaf(certificate))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def channel_to(address: str, certificate: str) -> grpc.Channel:
    """gRPC to a server; `certificate`: its own (PEM), where it speaks TLS."""
    options = [("grpc.max_receive_message_length", 256 << 20)]
    if not certificate:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(certificate.encode()), options)


def _leaf(certificate: str) -> str:
    """The first, which is the server's own."""
    return f"{_BEGIN}{certificate.partition(_BEGIN)[2].partition(_END)[0]}{_END}\n"


def _text(option: str, file: str | None) -> str:
    try:
        return Path(str(file)).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UserErrorException(f"{option} {file!r} cannot be read as PEM: {error}", target=option) from error
