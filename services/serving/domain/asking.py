"""What a request may ask for: the faults that it has by itself, whatever is known of endpoints and models."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from trainyard.endpoint.v1.endpoint_pb2 import (
    DeployEndpoint,
    EndpointRejected,
    Labels,
    Limits,
    ModelReference,
    RollBackEndpoint,
    Scoring,
    Tls,
    TrafficSplit,
    UpdateEndpoint,
    UpdateTraffic,
)
from trainyard.event.v1.artifact_pb2 import Failure

Request = DeployEndpoint | UpdateEndpoint | RollBackEndpoint | UpdateTraffic
"""Those that are answered once all is known of the models that they name."""

Fault = tuple[str, str]
"""What is at fault, and why."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HEADER = re.compile(r"[a-z][-a-z0-9]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.IGNORECASE)
_CERTIFICATE, _LONGEST_PEM = "-----BEGIN CERTIFICATE-----", 1 << 16
_NAME_RULE = "3-32 lower-case letters, digits and '-', with a letter first and no '-' last"
_MOST_MODELS, _MOST_LABELS, _LONGEST_LABEL, _LONGEST_DESCRIPTION = 50, 50, 1000, 1000
_SHORTEST_IDLE = 5
_LEAST_MEMORY = 64 << 20
_MOST_CORES, _MOST_MEMORY = 1024, 1 << 50


def name_fault(name: str) -> str:
    """Why this can be no endpoint's name, in words; "" if it can."""
    if 3 <= len(name) <= 32 and _NAME.fullmatch(name):
        return ""
    return f"{name[:100]!r} is no endpoint name. It must have {_NAME_RULE}."


def unanswerable(request: Request) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.endpoint) > 255:
        return f"the endpoint's name has {len(request.endpoint)} characters; 32 are the most"
    return ""


def models_of(request: Request) -> list[ModelReference]:
    """Those that are named, in order; with an alias the first one's version is not known yet."""
    match request:
        case DeployEndpoint():
            first = [ModelReference(model=request.model, version=request.version)] if request.model else []
            return [*first, *request.more_models]
        case UpdateEndpoint():
            return list(request.models)
        case UpdateTraffic() if request.HasField("beside"):
            return [request.beside]
    return []


def invalid(request: Request) -> EndpointRejected | None:
    """The answer where the request itself is wrong."""
    if why := name_fault(request.endpoint):
        return refused(request, "UserError", why, "endpoint")
    fault: Fault | None = None
    match request:
        case DeployEndpoint():
            fault = _deployment_fault(request)
        case UpdateEndpoint():
            fault = _update_fault(request)
        case UpdateTraffic():
            fault = _split_fault(request.split)
    return None if fault is None else refused(request, "UserError", fault[1], fault[0])


def refused(request: Request, code: str, message: str, target: str) -> EndpointRejected:
    failure = Failure(code=code, message=message[:3000], target=target[:1000])
    return EndpointRejected(submission_id=request.submission_id, endpoint=request.endpoint, failure=failure)


def _deployment_fault(request: DeployEndpoint) -> Fault | None:
    has_code = request.HasField("scoring")
    if not has_code and request.more_models:
        return "models", "Deployment without code takes exactly one model. Give a scoring script, or one model."
    if not has_code and not request.model:
        return "model", "The request names no model version. Give the name of a registered model and a version from 1."
    return (
        _content_fault(models_of(request), request.alias, request.scoring if has_code else None)
        or tls_fault(request.tls)
        or _settings_fault(request)
    )


def _update_fault(request: UpdateEndpoint) -> Fault | None:
    if request.alias and not request.models:
        return "models", "An alias belongs to a model. Name the model too."
    scoring = request.scoring if request.HasField("scoring") else None
    return _content_fault(request.models, request.alias, scoring) or tls_fault(request.tls) or _settings_fault(request)


def _content_fault(models: Sequence[ModelReference], alias: str, scoring: Scoring | None) -> Fault | None:
    if len(models) > _MOST_MODELS:
        return "models", f"{len(models)} models were given; {_MOST_MODELS} are the most."
    for place, it in enumerate(models):
        if alias and not place:
            if it.version:
                return (
                    "alias",
                    f"Model {it.model[:100]!r} is asked for by its version {it.version} and by its alias {alias[:100]!r}. Give one.",
                )
        elif not it.model or not it.version:
            return "model", "The request names no model version. Give the name of a registered model and a version from 1."
    names = [it.model for it in models]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        return "models", f"Model {twice[:100]!r} was given twice. Give one version of each."
    return _scoring_fault(scoring) if scoring is not None else None


def _scoring_fault(scoring: Scoring) -> Fault | None:
    script = scoring.entry_script
    parts = script.split("/")
    if not script.endswith(".py") or script.startswith("/") or any(part in ("", ".", "..") for part in parts) or not script.isprintable():
        return (
            "entry_script",
            f"{script[:200]!r} is no entry script. Give a path inside the source folder that ends in .py, e.g. 'score.py'.",
        )
    if scoring.source.WhichOneof("where") is None:
        return "source", "The request has no source folder for its entry script."
    inline = scoring.source.inline.files
    if inline and script not in inline:
        return "entry_script", f"The source folder has no {script[:200]!r}; it has: {', '.join(sorted(inline)[:10])[:1000]}."
    return None


def tls_fault(tls: Tls) -> Fault | None:
    """Of its form; whether the certificate is one is told where its key is taken."""
    pem = tls.certificate_pem
    if not pem and not tls.cname:
        return None
    if "PRIVATE KEY" in pem:
        return "certificate", "A key does not belong into a request, which others can read: KeepCertificate takes it. Make a new one."
    if not (_CERTIFICATE in pem and pem.isascii() and len(pem) <= _LONGEST_PEM):
        return "certificate", f"The certificate is no PEM text of at most {_LONGEST_PEM} bytes that has a line {_CERTIFICATE}."
    if not _HOST.fullmatch(tls.cname):
        return "cname", f"{tls.cname[:100]!r} is no host name. Give the one that callers use and the certificate is for."
    return None


def _split_fault(split: TrafficSplit) -> Fault | None:
    if not (math.isfinite(split.percent) and 0 <= split.percent <= 100):
        return "percent", f"percent is {split.percent:g}; it goes from 0 to 100."
    if split.sticky_by and not _HEADER.fullmatch(split.sticky_by):
        return "sticky_by", f"{split.sticky_by[:100]!r} is no name of a header: lower-case letters, digits and '-', a letter first."
    return None


def _settings_fault(request: DeployEndpoint | UpdateEndpoint) -> Fault | None:
    return _limits_fault(request.limits) or _told_fault(request.tags, request.properties, request.description) or _rate_fault(request)


def _rate_fault(request: DeployEndpoint | UpdateEndpoint) -> Fault | None:
    if 0 <= request.sample_rate <= 1:  # no number is not
        return None
    return "sample_rate", f"sample_rate is {request.sample_rate:g}; it goes from 0, which is no call, to 1, which is all of them."


def _limits_fault(limits: Limits) -> Fault | None:
    if not (math.isfinite(limits.cpu_cores) and 0 <= limits.cpu_cores <= _MOST_CORES):
        return "cpu_cores", f"cpu_cores is {limits.cpu_cores:g}; it goes from 0, which is no bound, to {_MOST_CORES}."
    if limits.memory_bytes and not _LEAST_MEMORY <= limits.memory_bytes <= _MOST_MEMORY:
        return (
            "memory",
            f"{limits.memory_bytes} bytes of memory are no bound that a server could keep: give at least {_LEAST_MEMORY}, or 0.",
        )
    if 0 < limits.idle_seconds < _SHORTEST_IDLE:
        return (
            "idle_seconds",
            f"{limits.idle_seconds} s without a call are too few to end a server for; {_SHORTEST_IDLE} are the least, 0 is never.",
        )
    return None


def _told_fault(tags: Labels, properties: Labels, description: str) -> Fault | None:
    for name, values in (("tags", tags.values), ("properties", properties.values)):
        if fault := _label_fault(name, values):
            return name, fault
    if len(description) > _LONGEST_DESCRIPTION:
        return "description", f"The description has {len(description)} characters; {_LONGEST_DESCRIPTION} are the most."
    return None


def _label_fault(name: str, values: Mapping[str, str]) -> str:
    if len(values) > _MOST_LABELS:
        return f"{len(values)} {name} were given; {_MOST_LABELS} are the most."
    for key, value in values.items():
        if not 1 <= len(key) <= _LONGEST_LABEL or len(value) > _LONGEST_LABEL:
            return f"One of the {name} is {key[:100]!r}: names have 1 to {_LONGEST_LABEL} characters, values at most as many."
    return ""
