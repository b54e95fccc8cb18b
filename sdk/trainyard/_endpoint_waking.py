"""Waking an endpoint that speaks TLS: the door, which wakes the others, speaks none, so neither key nor body may go there."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trainyard._errors import WebserviceException
from trainyard._services_of import clients_of

if TYPE_CHECKING:
    from trainyard._webservice import Webservice

_SECONDS, _POLL_SECONDS, _CONNECT_SECONDS = 90.0, 0.2, 5.0


def wake(service: Webservice) -> None:
    """Returns once its server listens at its own address. Raises WebserviceException, code "Unavailable", where it does not within 90 s."""
    from trainyard.endpoint.v1 import endpoint_pb2

    clients, deadline = clients_of(service.workspace), time.monotonic() + _SECONDS
    while True:
        if service.asleep:
            clients.call(clients.endpoints.WakeEndpoint, endpoint_pb2.WakeEndpoint(endpoint=service.name), WebserviceException)
        service.update_deployment_state()
        if not service.asleep and (not service.scoring_uri or (service.state != "Unhealthy" and _listens(service.scoring_uri))):
            return
        if time.monotonic() >= deadline:
            raise WebserviceException(
                f"Endpoint {service.name!r} was woken and did not answer within {_SECONDS:.0f} s: {service._message.why}",
                code="Unavailable",
                target=service.name,
                hint="call again in a moment; get_logs() has what its server says",
            )
        time.sleep(_POLL_SECONDS)


def _listens(uri: str) -> bool:
    """An address whose name leads nowhere is the caller's to tell: waiting does not help."""
    place = urlsplit(uri)
    try:
        socket.create_connection((place.hostname or "", place.port or 443), _CONNECT_SECONDS).close()
    except socket.gaierror:
        return True
    except OSError:
        return False
    return True
