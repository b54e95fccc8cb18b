"""An endpoint as callers are shown it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.serving.domain.endpoint import Deployment, Endpoint, state_of, why_of
from services.serving.domain.model_version import ModelVersion, bounds
from trainyard.endpoint.v1 import endpoint_pb2


@dataclass(frozen=True)
class Door:
    """Where all models answer by name; ports of 0: nowhere. `is_kept_out`: somebody else answers there now, who is to get nobody's key."""

    host: str
    grpc_port: int
    rest_port: int
    is_kept_out: Callable[[], bool] = lambda: False

    @property
    def is_open(self) -> bool:
        return bool(self.grpc_port and self.rest_port) and not self.is_kept_out()

    @property
    def grpc_address(self) -> str:
        return f"{self.host}:{self.grpc_port}" if self.is_open else ""

    def uri_of(self, endpoint: Endpoint) -> str:
        """Its scoring URI by way of the door; "" while nothing answers."""
        path = urlsplit(endpoint.scoring_uri).path
        return f"http://{self.host}:{self.rest_port}/endpoints/{endpoint.name}{path}" if path and self.is_open else ""


def shown(endpoint: Endpoint, door: Door, versions: Sequence[ModelVersion]) -> endpoint_pb2.Endpoint:
    """`versions`: those that its latest deployment has."""
    latest, second = endpoint.latest, endpoint.second
    return endpoint_pb2.Endpoint(
        endpoint=endpoint.name,
        state=state_of(endpoint),
        why=why_of(endpoint),
        model=latest.model,
        version=latest.version,
        deployment=latest.number,
        grpc_address=endpoint.grpc_address if not endpoint.asleep else "",
        scoring_uri=endpoint.scoring_uri if not endpoint.asleep else "",
        failure=endpoint.failure,
        submission_id=latest.submission_id,
        alias=latest.alias,
        more_models=latest.more_models,
        has_code=latest.scoring is not None,
        limits=latest.limits,
        bounds=bounds(latest.limits, versions),
        settings=endpoint.settings,
        created_at=endpoint.created_at,
        updated_at=latest.at,
        entry_script=latest.scoring.entry_script if latest.scoring is not None else "",
        deployments=[_summary(it) for it in endpoint.lived],
        beside=_summary(second.deployment) if second is not None else None,
        split=second.split if second is not None else None,
        asleep=endpoint.asleep,
        tls=endpoint.serving.tls if endpoint.serving is not None else None,
        beside_is_up=second is not None and second.up,
        door_grpc_address=door.grpc_address if endpoint.grpc_address else "",
        door_scoring_uri=door.uri_of(endpoint),
    )


def _summary(deployment: Deployment) -> endpoint_pb2.DeploymentSummary:
    return endpoint_pb2.DeploymentSummary(
        deployment=deployment.number,
        model=deployment.model,
        version=deployment.version,
        entry_script=deployment.scoring.entry_script if deployment.scoring is not None else "",
    )
