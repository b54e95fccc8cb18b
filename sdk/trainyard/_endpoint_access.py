"""Keys and tokens of an endpoint, as its owner gets them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trainyard._errors import WebserviceException
from trainyard._times import as_utc


@dataclass(frozen=True)
class AccessToken:
    """A token that opens an endpoint until it ends; times in UTC."""

    access_token: str
    refresh_after: datetime
    expiry_on: datetime
    token_type: str = "Bearer"


class EndpointAccess:
    """`message` is an Endpoint as the serving service shows it."""

    def __init__(self, clients: Any, message: Any) -> None:
        self._clients = clients
        self._name = message.endpoint
        self._asks_for = message.settings.authentication

    @property
    def by_key(self) -> bool:
        from trainyard.endpoint.v1 import endpoint_pb2

        return bool(self._asks_for == endpoint_pb2.AUTHENTICATION_KEY)

    @property
    def by_token(self) -> bool:
        from trainyard.endpoint.v1 import endpoint_pb2

        return bool(self._asks_for == endpoint_pb2.AUTHENTICATION_TOKEN)

    def headers(self) -> dict[str, str]:
        """What a call of the owner's has to send; nothing where nothing is asked for."""
        if self.by_key:
            return {"authorization": f"Bearer {self.keys()[0]}"}
        return {"authorization": f"Bearer {self.token()[0]}"} if self.by_token else {}

    def keys(self) -> tuple[str, str]:
        from trainyard.endpoint.v1 import endpoint_pb2

        request = endpoint_pb2.GetEndpointKeysRequest(endpoint=self._name)
        answer = self._clients.call(self._clients.endpoints.GetEndpointKeys, request, WebserviceException)
        return answer.primary, answer.secondary

    def regenerate(self, key: str, set_key: str | None) -> None:
        from trainyard.endpoint.v1 import endpoint_pb2

        known = {"primary": endpoint_pb2.KEY_PRIMARY, "secondary": endpoint_pb2.KEY_SECONDARY}
        if set_key:
            raise WebserviceException("A key cannot be chosen: the platform makes it.", code="UserError", target="set_key")
        if not isinstance(key, str) or key.lower() not in known:
            raise WebserviceException(f"A key is 'Primary' or 'Secondary', not {key!r}.", code="UserError", target="key")
        request = endpoint_pb2.RegenerateEndpointKey(endpoint=self._name, key=known[key.lower()])
        self._clients.call(self._clients.endpoints.RegenerateEndpointKey, request, WebserviceException)

    def token(self) -> tuple[str, datetime, datetime]:
        """With the times when to ask for the next one, and when it ends."""
        from trainyard.endpoint.v1 import endpoint_pb2

        request = endpoint_pb2.GetEndpointTokenRequest(endpoint=self._name)
        answer = self._clients.call(self._clients.endpoints.GetEndpointToken, request, WebserviceException)
        return answer.token, as_utc(answer.refresh_after), as_utc(answer.expires_at)
