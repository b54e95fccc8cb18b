"""TensorFlow Serving's configuration files, protobuf messages in text form, and what they mean here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from services.serving.model_server.batching import BatchingParameters
from services.serving.model_server.errors import ServeError, invalid
from services.serving.model_server.versions import All, Latest, ModelConfig, Policy, Specific
from services.serving.model_server.wire import Wire

_TENSORFLOW = 1  # ModelType
PLATFORMS = ("tensorflow", "tflite")
METRICS_PATH = "/monitoring/prometheus/metrics"
_BATCHING_NUMBERS = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
_PRIORITIES = re.compile(r"^\s*((?:mixed|low|high|enable)_priority_\w+)", re.MULTILINE)
_UNKNOWN_FIELD = re.compile(r'has no field named "(\w+)"')


class BadConfig(Exception):
    """A file or an option makes no sense; the text says which and why."""


@dataclass(frozen=True)
class Tls:
    """PEM."""

    key: bytes
    certificate: bytes
    client_ca: bytes = b""
    client_must: bool = False
    """No client without a certificate."""


def parse(text: str, message: Any, where: object) -> Any:
    """The message, filled. Raises BadConfig with the line and column."""
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise BadConfig(f"Error parsing text-format {message.DESCRIPTOR.full_name}: {where}: {error}") from error


def read(path: Path, message: Any) -> Any:
    return parse(_text(path), message, path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"cannot read {path}: {error}") from error


def read_models(path: Path, wire: Wire) -> list[ModelConfig]:
    return model_list(read(path, wire.ModelServerConfig()), where=path)


def model_list(config: Any, where: object) -> list[ModelConfig]:
    """Of a ModelServerConfig. Raises BadConfig where it has no list, and ServeError where one of its models makes no sense."""
    if config.WhichOneof("config") == "custom_model_config":
        raise BadConfig(f"{where}: only a model_config_list is served, not a custom_model_config")
    return [model(item) for item in config.model_config_list.config]


def model(config: Any) -> ModelConfig:
    """Of a ModelConfig message."""
    if config.model_type and config.model_platform:
        raise invalid("Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform.")
    platform = "tensorflow" if config.model_type == _TENSORFLOW else config.model_platform
    if not platform:
        raise invalid("Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform.")
    if platform not in PLATFORMS:
        raise invalid(f"Model {config.name} requests unsupported platform {platform}; served are {', '.join(PLATFORMS)}")
    if config.HasField("logging_config"):
        print(f"model {config.name}: logging_config is not followed here; requests are logged where the endpoint is deployed", flush=True)
    return ModelConfig(config.name, config.base_path, platform, _policy(config.model_version_policy), dict(config.version_labels))


def _policy(policy: Any) -> Policy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(frozenset(policy.specific.versions))
        case _:
            return Latest(max(policy.latest.num_versions, 1))


def read_batching(path: Path, wire: Wire) -> BatchingParameters:
    message = _batching(path, wire.BatchingParameters())
    fields: dict[str, Any] = {
        name: getattr(message, name).value
        for name in (*_BATCHING_NUMBERS, "enable_large_batch_splitting", "max_execution_batch_size")
        if message.HasField(name)
    }
    fields["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
    fields["pad_variable_length_inputs"] = message.pad_variable_length_inputs
    try:
        return BatchingParameters(**fields)
    except ValueError as error:
        raise BadConfig(f"{path}: {error}") from error


def _batching(path: Path, message: Any) -> Any:
    """Filled; what only servers with several priorities know is passed over, and said to be."""
    text = _text(path)
    priorities = sorted(set(_PRIORITIES.findall(text)))
    try:
        return parse(text, message, path)
    except BadConfig as error:
        unknown = _UNKNOWN_FIELD.search(str(error))
        if unknown is None or unknown[1] not in priorities:
            raise
    print(f"{path}: {', '.join(priorities)}: no effect here, all calls have the same priority", flush=True)
    message.Clear()
    return text_format.Parse(text, message, allow_unknown_field=True)


def read_metrics_path(path: Path, wire: Wire) -> str:
    """Where metrics are told beside /metrics; "" where they are not."""
    config = read(path, wire.MonitoringConfig()).prometheus_config
    if not config.enable:
        return ""
    told = str(config.path or METRICS_PATH)
    if not told.startswith("/"):
        raise BadConfig(f"{path}: the path {told} of prometheus_config does not begin with /")
    return told


def read_tls(path: Path, wire: Wire) -> Tls:
    config = read(path, wire.SSLConfig())
    if not (config.server_key and config.server_cert):
        raise BadConfig(f"{path}: server_key and server_cert are both needed, in PEM")
    if config.client_verify and not config.custom_ca:
        raise BadConfig(f"{path}: client_verify needs custom_ca, who signs the certificates of clients")
    return Tls(config.server_key.encode(), config.server_cert.encode(), config.custom_ca.encode(), config.client_verify)


class ConfigFile:
    """A list of models that is read again and again."""

    def __init__(self, path: Path, wire: Wire) -> None:
        self._path = path
        self._wire = wire
        self._last = ""

    def changed(self) -> Sequence[ModelConfig] | None:
        """The models, where the file is not what it was. Raises BadConfig and ServeError, once for each content."""
        text = _text(self._path)
        if text == self._last:
            return None
        self._last = text
        try:
            return model_list(parse(text, self._wire.ModelServerConfig(), self._path), self._path)
        except ServeError as error:
            raise BadConfig(f"{self._path}: {error.message}") from error
