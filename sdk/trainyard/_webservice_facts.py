"""What an endpoint says of itself, as it was last asked for."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainyard._endpoint_access import EndpointAccess
from trainyard._errors import WebserviceException, from_failure
from trainyard._services_of import clients_of
from trainyard._times import as_utc

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_STATES = {"TRANSITIONING": "Transitioning", "HEALTHY": "Healthy", "UNHEALTHY": "Unhealthy", "FAILED": "Failed", "DELETED": "Deleted"}


class WebserviceFacts:
    """`_message` is an Endpoint as the serving service gave it."""

    workspace: Workspace
    name: str
    _message: Any

    def _fetch(self) -> Any:
        from trainyard.endpoint.v1 import endpoint_pb2

        clients = clients_of(self.workspace)
        return clients.call(
            clients.endpoints.GetEndpoint, endpoint_pb2.GetEndpointRequest(endpoint=self.name), WebserviceException
        ).endpoint

    def update_deployment_state(self) -> None:
        """Asks the serving service again. Raises WebserviceException where the endpoint is gone."""
        self._message = self._fetch()

    @property
    def state(self) -> str:
        """As last asked for: "Transitioning", "Healthy", "Unhealthy", "Failed" or "Deleted"."""
        from trainyard.endpoint.v1 import endpoint_pb2

        return _STATES.get(endpoint_pb2.EndpointState.Name(self._message.state).removeprefix("ENDPOINT_STATE_"), "Transitioning")

    @property
    def error(self) -> dict[str, Any] | None:
        """Why its latest deployment failed: code, message, target and details (the server's last lines); None where it did not."""
        return self._failure().serialize()["error"] if self._message.HasField("failure") else None

    @property
    def scoring_uri(self) -> str:
        """REST address, https with TLS, ends in ":predict", or in "/score" where a script answers; empty while nothing answers."""
        return str(self._message.scoring_uri)

    @property
    def grpc_address(self) -> str:
        """host:port of tensorflow.serving.PredictionService; empty while nothing answers, and where a script does."""
        return str(self._message.grpc_address)

    @property
    def model_id(self) -> str:
        """`name:version` of the (first) model of its latest deployment; empty for code without one."""
        return self.model_ids[0] if self.model_ids else ""

    @property
    def model_ids(self) -> builtins.list[str]:
        """`name:version` of every model of its latest deployment."""
        first = [f"{self._message.model}:{self._message.version}"] if self._message.model else []
        return [*first, *(f"{it.model}:{it.version}" for it in self._message.more_models)]

    @property
    def _access(self) -> EndpointAccess:
        return EndpointAccess(self.workspace._clients, self._message)

    @property
    def auth_enabled(self) -> bool:
        """True: callers send one of its keys."""
        return self._access.by_key

    @property
    def token_auth_enabled(self) -> bool:
        """True: callers send a token, which ends after some hours."""
        return self._access.by_token

    @property
    def tags(self) -> dict[str, str]:
        """For people, and to find it by."""
        return dict(self._message.settings.tags)

    @property
    def properties(self) -> dict[str, str]:
        """As tags, but none of them ever changes."""
        return dict(self._message.settings.properties)

    @property
    def description(self) -> str:
        """Free text; empty where none was given."""
        return str(self._message.settings.description)

    @property
    def compute_type(self) -> str:
        """ "ACI", as Azure calls what needs no cluster: here a process of this platform."""
        return "ACI"

    @property
    def image_id(self) -> str:
        """Empty: no image is built."""
        return ""

    @property
    def swagger_uri(self) -> None:
        """None: no description of its calls is served."""
        return

    @property
    def cpu_cores(self) -> float | None:
        """Bound of its server's computing threads, asked for or its models' own; None where there is none."""
        return float(self._bounds.cpu_cores) or None

    @property
    def memory_gb(self) -> float | None:
        """Bound of its server's memory in GiB, asked for or its models' own; None where there is none."""
        return self._bounds.memory_bytes / 2**30 or None

    @property
    def _bounds(self) -> Any:
        return self._message.bounds if self._message.HasField("bounds") else self._message.limits

    @property
    def idle_seconds(self) -> int:
        """Without a call for so long its server ends, and the next call through the door starts it; 0: never."""
        return int(self._message.limits.idle_seconds)

    @property
    def sample_rate(self) -> float:
        """The part of its calls, 0 to 1, that is kept on trainyard.inference."""
        return float(self._message.settings.sample_rate)

    @property
    def asleep(self) -> bool:
        """Its server has ended for want of calls: run() and predict(), which go through the door then, start it."""
        return bool(self._message.asleep)

    @property
    def ssl_enabled(self) -> bool:
        """Its own addresses speak TLS; the door's do not."""
        return bool(self._certificate)

    @property
    def _certificate(self) -> str:
        """PEM; empty without TLS."""
        return str(self._message.tls.certificate_pem)

    @property
    def created_time(self) -> datetime:
        """When its first deployment was taken, in UTC."""
        when: datetime = as_utc(self._message.created_at)
        return when

    @property
    def updated_time(self) -> datetime:
        """When its latest deployment was taken, in UTC."""
        when: datetime = as_utc(self._message.updated_at)
        return when

    @property
    def deployments(self) -> builtins.list[dict[str, Any]]:
        """Those that were live, oldest first (the last few): number, model ("name:version") and entry_script; roll_back goes to one of them."""
        return [
            {
                "deployment": int(it.deployment),
                "model": f"{it.model}:{it.version}" if it.model else "",
                "entry_script": str(it.entry_script),
            }
            for it in self._message.deployments
        ]

    @property
    def traffic(self) -> dict[str, Any] | None:
        """The version beside it: deployment, model, percent of the calls through the door, sticky_by, shadow, up; None where there is none."""
        beside, split = self._message.beside, self._message.split
        if not beside.deployment:
            return None
        return {
            "deployment": int(beside.deployment),
            "model": f"{beside.model}:{beside.version}" if beside.model else "",
            "percent": float(split.percent),
            "sticky_by": str(split.sticky_by),
            "shadow": bool(split.shadow),
            "up": bool(self._message.beside_is_up),
        }

    @property
    def door_scoring_uri(self) -> str:
        """REST address through the door, which splits calls; empty where there is no door, or nothing answers."""
        return str(self._message.door_scoring_uri)

    @property
    def door_grpc_address(self) -> str:
        """host:port of the door, which knows all models by name; empty where there is none, and where a script answers."""
        return str(self._message.door_grpc_address)

    @property
    def _rest_address(self) -> str:
        """Of the door only while it sleeps, and never where it speaks TLS, which the door does not."""
        return self.scoring_uri or (self.door_scoring_uri if self.asleep and not self.ssl_enabled else "")

    @property
    def _grpc_address(self) -> str:
        """As _rest_address; empty where a script answers as well."""
        return self.grpc_address or (self.door_grpc_address if self.asleep and not self.ssl_enabled else "")

    def serialize(self) -> dict[str, Any]:
        """Azure's shape as plain values; times are ISO 8601 in UTC. No key is in it."""
        return {
            "name": self.name,
            "description": self.description,
            "tags": self.tags,
            "properties": self.properties,
            "state": self.state,
            "createdTime": self.created_time.isoformat(),
            "updatedTime": self.updated_time.isoformat(),
            "error": self.error,
            "computeType": self.compute_type,
            "models": self.model_ids,
            "modelAlias": str(self._message.alias) or None,
            "entryScript": str(self._message.entry_script) or None,
            "scoringUri": self.scoring_uri,
            "grpcAddress": self.grpc_address,
            "authEnabled": self.auth_enabled,
            "tokenAuthEnabled": self.token_auth_enabled,
            "containerResourceRequirements": {"cpu": self.cpu_cores, "memoryInGB": self.memory_gb},
            "sampleRate": self.sample_rate,
            "sslEnabled": self.ssl_enabled,
            "cname": str(self._message.tls.cname) or None,
            "idleSeconds": self.idle_seconds,
            "asleep": self.asleep,
            "deployment": int(self._message.deployment),
            "deployments": self.deployments,
            "traffic": self.traffic,
            "doorScoringUri": self.door_scoring_uri,
            "doorGrpcAddress": self.door_grpc_address,
        }

    def _failure(self) -> WebserviceException:
        if not self._message.HasField("failure"):
            return WebserviceException(
                f"Endpoint {self.name!r} is {self.state.lower()}: {self._message.why}", code=self.state, target=self.name
            )
        error = from_failure(self._message.failure, WebserviceException, fixed=True)
        assert isinstance(error, WebserviceException)
        return error
