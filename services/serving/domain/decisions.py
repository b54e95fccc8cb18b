"""What follows from requests about deployments. The time comes in as an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.serving.domain.asking import Request, invalid, models_of, refused
from services.serving.domain.endpoint import Deployment, Endpoint, Fact
from services.serving.domain.model_version import SAVED_MODEL, TFLITE, ModelVersion, served_file
from trainyard.endpoint.v1.endpoint_pb2 import (
    KEY_PRIMARY,
    KEY_SECONDARY,
    DeployEndpoint,
    EndpointChanged,
    EndpointDeleted,
    EndpointKeyRegenerated,
    EndpointRejected,
    EndpointSettings,
    EndpointStarting,
    EndpointWoken,
    Key,
    Limits,
    ModelReference,
    RollBackEndpoint,
    Scoring,
    Tls,
    TrafficShifted,
    UpdateEndpoint,
    UpdateTraffic,
)
from trainyard.event.v1.artifact_pb2 import Failure

_TOLD = 10
# A record of the log holds 1 MiB, its key and headers included.
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Known:
    """The models that a request names, as the registry has told of them: "name:version" -> version, "name@alias" -> number."""

    versions: Mapping[str, ModelVersion] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)


class _Refused(Exception):
    """The answer is already clear."""

    def __init__(self, answer: EndpointRejected) -> None:
        super().__init__(answer.failure.message)
        self.answer = answer


def decide(request: Request, endpoint: Endpoint | None, known: Known, at: datetime) -> Fact:
    """The answer, once all is known of the models that was said before the request. Pure; never raises for bad input."""
    fact = _decided(request, endpoint, known, at)
    if fact.ByteSize() <= _MOST_BYTES:
        return fact
    what = f"What endpoint {request.endpoint!r} would be takes {fact.ByteSize()} bytes, and one event holds {_MOST_BYTES}."
    return refused(request, "UserError", f"{what} Give fewer tags and properties, or a smaller source.", "properties")


def _decided(request: Request, endpoint: Endpoint | None, known: Known, at: datetime) -> Fact:
    if (fault := invalid(request)) is not None:
        return fault
    try:
        match request:
            case DeployEndpoint():
                return _deploy(request, endpoint, known, at)
            case UpdateEndpoint():
                return _update(request, _there(request, endpoint), known, at)
            case RollBackEndpoint():
                return _roll_back(request, _there(request, endpoint), known, at)
            case UpdateTraffic():
                return _split(request, _there(request, endpoint), known, at)
    except _Refused as error:
        return error.answer
    raise TypeError(f"no request for a deployment: {request!r}")


def decide_delete(endpoint: Endpoint | None, pending: Iterable[Request]) -> list[Fact]:
    """What an endpoint's deletion leads to; nothing where there is nothing to delete. `pending` waits for its answer still."""
    message = "The endpoint was deleted before this deployment began."
    facts: list[Fact] = [refused(it, "EndpointDeleted", message, it.endpoint) for it in pending]
    if endpoint is not None and not endpoint.deleted:
        facts.append(EndpointDeleted(endpoint=endpoint.name))
    return facts


def decide_key(endpoint: Endpoint | None, key: Key) -> list[Fact]:
    """A key made anew; nothing where there is no such endpoint or key."""
    if endpoint is None or endpoint.deleted or key not in (KEY_PRIMARY, KEY_SECONDARY):
        return []
    made = endpoint.keys_made[0 if key == KEY_PRIMARY else 1]
    return [EndpointKeyRegenerated(endpoint=endpoint.name, key=key, generation=made + 1)]


def decide_wake(endpoint: Endpoint | None) -> list[Fact]:
    """Nothing where there is no such endpoint, or it does not sleep."""
    if endpoint is None or endpoint.serving is None or not endpoint.asleep:
        return []
    return [EndpointWoken(endpoint=endpoint.name, deployment=endpoint.serving.number)]


def follow_alias(endpoint: Endpoint | None, version: int, at: datetime) -> list[Fact]:
    """A new deployment where the endpoint follows an alias that points at another version than when the last one was decided."""
    if endpoint is None or not follows_another(endpoint, version):
        return []
    latest = endpoint.latest
    fact = _starting(f"alias {latest.alias} of {endpoint.name} {endpoint.highest + 1}"[:128], endpoint.name, endpoint, at)
    models = [ModelReference(model=latest.model, version=version), *latest.more_models]
    _fill(fact, models, latest.alias, version, latest.scoring, latest.limits)
    _secure(fact, latest.tls)
    return [fact] if fact.ByteSize() <= _MOST_BYTES else []


def follows_another(endpoint: Endpoint, version: int) -> bool:
    """`version`: where the alias that it follows points now; 0: nowhere."""
    return not endpoint.deleted and bool(endpoint.latest.alias) and version not in (0, endpoint.latest.alias_version)


# -- the three requests


def _deploy(request: DeployEndpoint, endpoint: Endpoint | None, known: Known, at: datetime) -> Fact:
    if endpoint is not None and not endpoint.deleted and endpoint.failure is None and not request.overwrite:
        there = f"Endpoint {request.endpoint!r} is there already, with {endpoint.latest.title}. Deploy with overwrite=True to replace it."
        return refused(request, "AlreadyExists", there, request.endpoint)
    scoring = request.scoring if request.HasField("scoring") else None
    models = _resolved(request, models_of(request), request.alias, known, has_code=scoring is not None)
    fact = _starting(request.submission_id, request.endpoint, endpoint, at)
    _fill(fact, models, request.alias, models[0].version if models else 0, scoring, request.limits if request.HasField("limits") else None)
    _secure(fact, request.tls if request.HasField("tls") else None)
    fact.settings.CopyFrom(
        EndpointSettings(
            authentication=request.authentication,
            tags=request.tags.values,
            properties=request.properties.values,
            description=request.description,
            sample_rate=request.sample_rate,
            unlisted=request.unlisted,
        )
    )
    return fact


def _update(request: UpdateEndpoint, endpoint: Endpoint, known: Known, at: datetime) -> Fact:
    settings = _changed(request, endpoint.settings)
    if not request.models and not any(request.HasField(it) for it in ("scoring", "limits", "tls")):
        return EndpointChanged(submission_id=request.submission_id, endpoint=endpoint.name, settings=settings)
    latest = endpoint.latest
    scoring = request.scoring if request.HasField("scoring") else latest.scoring
    models, alias, alias_version = latest.models, latest.alias, latest.alias_version
    if not request.models:
        _resolved(request, models, "", known, has_code=scoring is not None)  # the registry may have deleted one since
    else:
        alias = request.alias
        if scoring is None and len(request.models) != 1:
            return refused(request, "UserError", "Deployment without code takes exactly one model.", "models")
        models = _resolved(request, list(request.models), alias, known, has_code=scoring is not None)
        alias_version = models[0].version
    fact = _starting(request.submission_id, endpoint.name, endpoint, at)
    _fill(fact, models, alias, alias_version, scoring, request.limits if request.HasField("limits") else latest.limits)
    _secure(fact, request.tls if request.HasField("tls") else latest.tls)
    fact.settings.CopyFrom(settings)
    return fact


def _roll_back(request: RollBackEndpoint, endpoint: Endpoint, known: Known, at: datetime) -> Fact:
    target = roll_back_target(endpoint, request.deployment)
    if target is None:
        lived = ", ".join(f"{it.number} ({it.title})" for it in endpoint.lived) or "none"
        wanted = f"deployment {request.deployment}" if request.deployment else "an earlier deployment"
        what = (
            f"Endpoint {endpoint.name!r} has not had {wanted} that was live, so there is nothing to go back to. Those that were: {lived}."
        )
        return refused(request, "NothingToRollBack", what, endpoint.name)
    _resolved(request, target.models, "", known, has_code=target.scoring is not None)  # the registry may have deleted one since
    fact = _starting(request.submission_id, endpoint.name, endpoint, at)
    # It goes on following its alias, from where that points now: the next move brings a deployment.
    alias_version = endpoint.latest.alias_version if target.alias == endpoint.latest.alias else target.version
    _fill(fact, target.models, target.alias, alias_version, target.scoring, target.limits)
    _secure(fact, endpoint.latest.tls)  # its certificate of then may have ended
    fact.rolled_back_to = target.origin
    return fact


def _split(request: UpdateTraffic, endpoint: Endpoint, known: Known, at: datetime) -> Fact:
    serving, second = endpoint.serving, endpoint.second
    if serving is None or endpoint.asleep:
        what = f"Nothing answers for endpoint {endpoint.name!r}, so there are no calls to split. Deploy something first."
        return refused(request, "NothingToSplit", what, endpoint.name)
    if request.HasField("beside"):
        model = request.beside.model or serving.model
        if model != serving.model or not model:
            what = (
                f"Endpoint {endpoint.name!r} serves {serving.title}; beside it goes another version of its first model, not of {model!r}."
            )
            return refused(request, "UserError", what, "beside")
        if second is None or (second.deployment.model, second.deployment.version) != (model, request.beside.version):
            return _second(request, endpoint, serving, known, at)
    elif second is None:
        what = f"Endpoint {endpoint.name!r} has one deployment. Name the version that is to stand beside it."
        return refused(request, "NothingToSplit", what, endpoint.name)
    ends = not request.split.percent and not request.split.shadow
    number = 0 if ends or second is None else second.deployment.number
    fact = TrafficShifted(submission_id=request.submission_id, endpoint=endpoint.name, deployment=number, split=request.split)
    fact.at.FromDatetime(at)
    return fact


def _second(request: UpdateTraffic, endpoint: Endpoint, serving: Deployment, known: Known, at: datetime) -> EndpointStarting:
    """A deployment beside the one that answers, with all but the version as that has it. Raises _Refused."""
    asked = ModelReference(model=serving.model, version=request.beside.version)
    models = [*_resolved(request, [asked], "", known, has_code=serving.scoring is not None), *serving.more_models]
    fact = _starting(request.submission_id, endpoint.name, endpoint, at)
    _fill(fact, models, "", 0, serving.scoring, serving.limits)
    _secure(fact, serving.tls)
    fact.beside.CopyFrom(request.split)
    return fact


def roll_back_target(endpoint: Endpoint, number: int) -> Deployment | None:
    """The one of that number; without a number the one before what was asked for last. Rolled back twice goes back by two."""
    lived = endpoint.lived
    if number:
        return next((it for it in lived if it.number == number), None)
    if not any(it.number == endpoint.latest.number for it in lived):  # it never was live: what was before it is what worked
        return lived[-1] if lived else None
    return max((it for it in lived if it.origin < endpoint.latest.origin), key=lambda it: it.origin, default=None)


# -- parts of them


def _there(request: Request, endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None or endpoint.deleted:
        raise _Refused(refused(request, "EndpointNotFound", f"There is no endpoint {request.endpoint!r}.", request.endpoint))
    return endpoint


def _resolved(request: Request, models: list[ModelReference], alias: str, known: Known, *, has_code: bool) -> list[ModelReference]:
    """Every model with its version. Raises _Refused for one that is not known, or that cannot be served as it is."""
    found = []
    for place, it in enumerate(models):
        number = it.version
        if alias and not place and not (number := known.aliases.get(f"{it.model}@{alias}", 0)):
            what = f"Model {it.model!r} has no alias {alias!r}. Set it, or name a version."
            raise _Refused(refused(request, "AliasNotFound", what, f"{it.model}@{alias}"))
        version = known.versions.get(f"{it.model}:{number}")
        if version is None:
            what = f"There is no version {number} of a model {it.model!r}. In the SDK, Model.list(ws) shows what there is."
            raise _Refused(refused(request, "ModelNotFound", what, f"{it.model}:{number}"))
        if version.leaving:
            what = f"Model {version.id} was deleted from the registry, or is leaving it. Deploy another version."
            raise _Refused(refused(request, "ModelLeaving", what, version.id))
        if not has_code and not served_file(version.files):
            raise _Refused(
                EndpointRejected(submission_id=request.submission_id, endpoint=request.endpoint, failure=_nothing_to_serve(version))
            )
        if not has_code and version.operations:
            what = f"Model {version.id} reads or writes files or runs Python by {', '.join(version.operations)[:1000]}; without code it is not served."
            raise _Refused(refused(request, "ModelRefused", what, version.id))
        found.append(ModelReference(model=it.model, version=number))
    return found


def _starting(submission_id: str, name: str, endpoint: Endpoint | None, at: datetime) -> EndpointStarting:
    fact = EndpointStarting(submission_id=submission_id, endpoint=name, deployment=endpoint.highest + 1 if endpoint else 1)
    fact.at.FromDatetime(at)
    return fact


def _fill(
    fact: EndpointStarting, models: list[ModelReference], alias: str, alias_version: int, scoring: Scoring | None, limits: Limits | None
) -> None:
    if models:
        fact.model, fact.version = models[0].model, models[0].version
        fact.alias, fact.alias_version = alias, alias_version if alias else 0
        fact.more_models.extend(models[1:])
    if scoring is not None:
        fact.scoring.CopyFrom(scoring)
    if limits is not None:
        fact.limits.CopyFrom(limits)


def _secure(fact: EndpointStarting, tls: Tls | None) -> None:
    if tls is not None and tls.certificate_pem:
        fact.tls.CopyFrom(tls)


def _changed(request: UpdateEndpoint, settings: EndpointSettings) -> EndpointSettings:
    """Raises _Refused for a property that would change."""
    changed = EndpointSettings()
    changed.CopyFrom(settings)
    if request.authentication:
        changed.authentication = request.authentication
    if request.HasField("tags"):
        changed.tags.clear()
        changed.tags.update(request.tags.values)
    for name, value in request.properties.values.items():
        if settings.properties.get(name, value) != value:
            what = (
                f"Property {name[:100]!r} of endpoint {request.endpoint!r} is {settings.properties[name]!r} and never changes. Use a tag."
            )
            raise _Refused(refused(request, "UserError", what, name))
        changed.properties[name] = value
    if request.HasField("description"):
        changed.description = request.description
    if request.HasField("sample_rate"):
        changed.sample_rate = request.sample_rate
    return changed


def _nothing_to_serve(version: ModelVersion) -> Failure:
    paths = [file.path for file in version.files.files]
    more = f" and {len(paths) - _TOLD} more" if len(paths) > _TOLD else ""
    message = (
        f"Model {version.id} has neither {SAVED_MODEL} nor exactly one *{TFLITE} file at the top of its folder, so it is no TensorFlow "
        f"SavedModel and no TFLite model. "
        f"It has: {', '.join(paths[:_TOLD]) or 'no files'}{more}. "
        "Write it by tf.saved_model.save or model.export and register that folder, or register the TFLite file, or give a scoring script that loads what there is."
    )
    return Failure(code="NotASavedModel", message=message[:3000], target=version.id)
