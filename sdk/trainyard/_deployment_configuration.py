"""How a deployment is to run: bounds of its server, who may call, and what people know it by."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard.endpoint.v1.endpoint_pb2 import DeployEndpoint, Limits

_MOST = 1 << 20


@dataclass(frozen=True)
class DeploymentConfiguration:
    """What AciWebservice.deploy_configuration and its like make; None = as the platform has it."""

    cpu_cores: float | None = None
    memory_gb: float | None = None
    auth_enabled: bool | None = None
    token_auth_enabled: bool | None = None
    tags: Mapping[str, str] | None = None
    properties: Mapping[str, str] | None = None
    description: str | None = None
    idle_seconds: int | None = None
    sample_rate: float | None = None
    ssl_enabled: bool | None = None
    ssl_cert_pem_file: str | None = None
    ssl_key_pem_file: str | None = None
    ssl_cname: str | None = None
    anew: bool = field(default=False, repr=False)  # a new server even where nothing changes

    def __post_init__(self) -> None:
        """Raises UserErrorException."""
        for option in ("cpu_cores", "memory_gb"):
            checked_amount(option, getattr(self, option))
        if self.idle_seconds is not None and (not isinstance(self.idle_seconds, int) or not 0 <= self.idle_seconds < 1 << 32):
            raise UserErrorException(f"idle_seconds is a whole number from 0, not {self.idle_seconds!r}.", target="idle_seconds")
        rate = self.sample_rate
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1):
            raise UserErrorException(f"sample_rate is a number from 0 to 1, not {rate!r}.", target="sample_rate")
        self._check_tls()
        if self.auth_enabled and self.token_auth_enabled:
            raise UserErrorException("Give auth_enabled (keys) or token_auth_enabled, not both.", target="auth_enabled")

    def _check_tls(self) -> None:
        given = {name: getattr(self, name) for name in ("ssl_cert_pem_file", "ssl_key_pem_file", "ssl_cname")}
        if not self.ssl_enabled and (useless := [name for name, value in given.items() if value]):
            raise UserErrorException(f"{', '.join(useless)} without ssl_enabled=True means nothing.", target=useless[0])
        if self.ssl_enabled and (missing := [name for name, value in given.items() if not value]):
            what = "the PEM files of a certificate and its key, and the host name that it is for"
            raise UserErrorException(f"ssl_enabled needs {', '.join(missing)} too: {what}.", target=missing[0])

    @classmethod
    def of(cls, given: DeploymentConfiguration | None, *options: Any) -> DeploymentConfiguration:
        """Options in the order of the fields; one that is None is as `given` has it."""
        names = [it.name for it in fields(cls)][: len(options)]
        return replace(given or cls(), **{name: value for name, value in zip(names, options, strict=True) if value is not None})

    def _fill(self, request: DeployEndpoint) -> None:
        request.authentication = authentication(self.auth_enabled, self.token_auth_enabled)
        request.tags.values.update(_texts(self.tags))
        request.properties.values.update(_texts(self.properties))
        request.description = self.description or ""
        request.sample_rate = self.sample_rate or 0.0


def rate_of(collect_model_data: bool | None, sample_rate: float | None) -> float | None:
    """The part of its calls that an endpoint keeps; None where neither says. Raises UserErrorException where they say different things."""
    if collect_model_data is None:
        return sample_rate
    if sample_rate is not None and bool(sample_rate) != bool(collect_model_data):
        raise UserErrorException(
            f"collect_model_data is {collect_model_data!r} and sample_rate {sample_rate!r}: give one of them.", target="sample_rate"
        )
    return (1.0 if sample_rate is None else sample_rate) if collect_model_data else 0.0


def checked_amount(option: str, value: Any) -> None:
    """Raises UserErrorException for what is no amount."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MOST):
        raise UserErrorException(f"{option} is a number greater than 0, not {value!r}.", target=option)


def limits(cpu_cores: float | None, memory_gb: float | None, idle_seconds: int | None) -> Limits:
    from trainyard.endpoint.v1.endpoint_pb2 import Limits

    return Limits(cpu_cores=cpu_cores or 0.0, memory_bytes=int((memory_gb or 0.0) * 2**30), idle_seconds=idle_seconds or 0)


def authentication(auth_enabled: bool | None, token_auth_enabled: bool | None) -> Any:
    """An Authentication; unspecified where neither was given."""
    from trainyard.endpoint.v1 import endpoint_pb2

    if auth_enabled:
        return endpoint_pb2.AUTHENTICATION_KEY
    if token_auth_enabled:
        return endpoint_pb2.AUTHENTICATION_TOKEN
    neither = auth_enabled is None and token_auth_enabled is None
    return endpoint_pb2.AUTHENTICATION_UNSPECIFIED if neither else endpoint_pb2.AUTHENTICATION_NONE


def refuse_secrets(given: Mapping[str, Any]) -> None:
    """What would promise safety that is not there. Raises UserErrorException."""
    for option in ("primary_key", "secondary_key"):
        if given.get(option):
            raise UserErrorException(
                f"{option} cannot be chosen: the platform makes the keys.", target=option, hint="read them by get_keys()"
            )
    for option in ("cmk_vault_base_url", "cmk_key_name"):
        if given.get(option):
            raise UserErrorException(
                f"{option} cannot be had: disks are not encrypted by the platform.", target=option, hint="encrypt the file system"
            )


def warn_of(given: Mapping[str, Any]) -> None:
    """Options of Azure's cloud that mean nothing here."""
    for option, value in given.items():
        if value:
            warnings.warn(f"{option} has no effect here: endpoints are processes of this platform.", stacklevel=3)


def _texts(entries: Mapping[str, str] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (entries or {}).items()}
