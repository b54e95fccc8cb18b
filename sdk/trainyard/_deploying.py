"""Requests for deployments, from what a caller gives: models by object, id or alias, a script, and how it is to run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._deployment_configuration import DeploymentConfiguration, authentication, limits, refuse_secrets, warn_of
from trainyard._endpoint_tls import secured
from trainyard._errors import WebserviceException
from trainyard._inference_config import InferenceConfig
from trainyard._model_find import texts

if TYPE_CHECKING:
    from trainyard._model import Model
    from trainyard._webservice_facts import WebserviceFacts
    from trainyard._workspace import Workspace

_SECONDS = 120.0


def deploy(
    workspace: Workspace,
    name: str,
    models: Sequence[Model | str],
    inference_config: InferenceConfig | None,
    deployment_config: DeploymentConfiguration | None,
    *,
    overwrite: bool,
    show_progress: bool,
) -> Any:
    """The Endpoint as it stands. Raises WebserviceException."""
    from trainyard.endpoint.v1 import endpoint_pb2

    _check(inference_config, deployment_config)
    named, alias = _named(models)
    if inference_config is None and len(named) != 1:
        raise WebserviceException(
            f"Deployment without code takes exactly one model; {len(named)} were given.",
            code="UserError",
            target="models",
            hint="give one model, or an inference_config whose script serves them",
        )
    request = endpoint_pb2.DeployEndpoint(submission_id=uuid.uuid4().hex, endpoint=name, alias=alias, overwrite=overwrite)
    if named:
        request.model, request.version = named[0].model, named[0].version
        request.more_models.extend(named[1:])
    config = deployment_config or DeploymentConfiguration()
    config._fill(request)
    if config.cpu_cores or config.memory_gb or config.idle_seconds:
        request.limits.CopyFrom(limits(config.cpu_cores, config.memory_gb, config.idle_seconds))
    clients = workspace._clients
    if (tls := secured(clients, config)) is not None:
        request.tls.CopyFrom(tls)
    if inference_config is not None:
        request.scoring.CopyFrom(inference_config._to_message(workspace._objects, show_progress=show_progress))
        request.description = request.description or inference_config.description or ""
    return clients.call(clients.endpoints.DeployEndpoint, request, WebserviceException, timeout=_SECONDS).endpoint


def update(
    service: WebserviceFacts,
    models: Sequence[Model | str] | None,
    inference_config: InferenceConfig | None,
    wanted: DeploymentConfiguration,
    others: Mapping[str, Any],
) -> Any:
    """The Endpoint as it stands. Raises WebserviceException."""
    from trainyard.endpoint.v1 import endpoint_pb2

    refuse_secrets(others)
    warn_of(others)
    _check(inference_config, None)
    request = endpoint_pb2.UpdateEndpoint(submission_id=uuid.uuid4().hex, endpoint=service.name)
    if models is not None:
        named, request.alias = _named(models)
        if not named:
            raise WebserviceException("models is empty; leave it out to keep those that are served.", code="UserError", target="models")
        request.models.extend(named)
    if inference_config is not None:
        request.scoring.CopyFrom(inference_config._to_message(service.workspace._objects, show_progress=True))
    if (wanted.cpu_cores, wanted.memory_gb, wanted.idle_seconds) != (None, None, None) or wanted.anew:
        asked = service._message.limits  # and not what its models ask for, which others may not
        idle = asked.idle_seconds if wanted.idle_seconds is None else wanted.idle_seconds
        request.limits.CopyFrom(limits(wanted.cpu_cores or asked.cpu_cores, wanted.memory_gb or asked.memory_bytes / 2**30, idle))
    clients = service.workspace._clients
    if (tls := secured(clients, wanted)) is not None:
        request.tls.CopyFrom(tls)
    request.authentication = authentication(wanted.auth_enabled, wanted.token_auth_enabled)
    if wanted.tags is not None:
        request.tags.SetInParent()
        request.tags.values.update(texts(wanted.tags))
    if wanted.properties is not None:
        request.properties.values.update(texts(wanted.properties))
    if wanted.sample_rate is not None:
        request.sample_rate = wanted.sample_rate
    if wanted.description is not None:
        request.description = wanted.description
    return clients.call(clients.endpoints.UpdateEndpoint, request, WebserviceException, timeout=_SECONDS).endpoint


def roll_back(service: WebserviceFacts, deployment: int | None) -> Any:
    """The Endpoint as it stands. Raises WebserviceException."""
    from trainyard.endpoint.v1 import endpoint_pb2

    if deployment is not None and (not isinstance(deployment, int) or not 0 < deployment < 1 << 63):
        raise WebserviceException(f"A deployment is a number from 1, not {deployment!r}.", code="UserError", target="deployment")
    request = endpoint_pb2.RollBackEndpoint(submission_id=uuid.uuid4().hex, endpoint=service.name, deployment=deployment or 0)
    clients = service.workspace._clients
    return clients.call(clients.endpoints.RollBackEndpoint, request, WebserviceException, timeout=_SECONDS).endpoint


def split(service: WebserviceFacts, version: int | None, percent: float, sticky_by: str | None, shadow: bool) -> Any:
    """The Endpoint as it stands. Raises WebserviceException."""
    from trainyard.endpoint.v1 import endpoint_pb2

    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent <= 100:
        raise WebserviceException(f"percent is a number from 0 to 100, not {percent!r}.", code="UserError", target="percent")
    request = endpoint_pb2.UpdateTraffic(
        submission_id=uuid.uuid4().hex,
        endpoint=service.name,
        split=endpoint_pb2.TrafficSplit(percent=percent, sticky_by=(sticky_by or "").lower(), shadow=shadow),
    )
    if version is not None:
        request.beside.model, request.beside.version = service.model_id.rpartition(":")[0], version
    clients = service.workspace._clients
    return clients.call(clients.endpoints.UpdateTraffic, request, WebserviceException, timeout=_SECONDS).endpoint


def parsed(text: str) -> tuple[str, int, str]:
    """ "name:3" as ("name", 3, ""), "name@champion" as ("name", 0, "champion"). Raises WebserviceException."""
    name, at, alias = text.partition("@")
    if at and name and alias:
        return name, 0, alias
    name, _, number = text.rpartition(":")
    if not name or not number.isdecimal() or not 0 < int(number) < 1 << 63:
        raise WebserviceException(
            f"{text!r} names no model version.", code="UserError", target="models", hint="write 'name:3' or 'name@alias', or give a Model"
        )
    return name, int(number), ""


def _named(models: Sequence[Model | str]) -> tuple[list[Any], str]:
    """ModelReferences, and the first one's alias."""
    from trainyard._model import Model
    from trainyard.endpoint.v1 import endpoint_pb2

    if isinstance(models, str) or not isinstance(models, Sequence) or any(not isinstance(model, Model | str) for model in models):
        raise WebserviceException(f"models is a list of Model, not {models!r}.", code="UserError", target="models", hint="write [model]")
    found, first = [], ""
    for place, model in enumerate(models):
        name, version, alias = parsed(model) if isinstance(model, str) else (model.name, model.version, "")
        if alias and place:
            raise WebserviceException(
                f"{model!r} is not the first of the models; only the first may be named by an alias.", code="UserError", target="models"
            )
        first = first or alias
        found.append(endpoint_pb2.ModelReference(model=name, version=version))
    return found, first


def _check(inference_config: Any, deployment_config: Any) -> None:
    if inference_config is not None and not isinstance(inference_config, InferenceConfig):
        raise WebserviceException(
            f"inference_config is an InferenceConfig, not {inference_config!r:.200}.", code="UserError", target="inference_config"
        )
    if deployment_config is not None and not isinstance(deployment_config, DeploymentConfiguration):
        raise WebserviceException(
            f"deployment_config is no deployment configuration: {deployment_config!r:.200}.",
            code="UserError",
            target="deployment_config",
            hint="make it by AciWebservice.deploy_configuration(...)",
        )
