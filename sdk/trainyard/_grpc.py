"""Calls to the services: one channel each, deadlines, and repeats of what was UNAVAILABLE with the very same request."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import grpc
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from trainyard import _errors

DEADLINE_SECONDS = 60.0
RETRY_SECONDS = 30.0
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    # A restarted service is met again within a second, not after gRPC's default backoff of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def is_unavailable(error: BaseException) -> bool:
    return isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.UNAVAILABLE


class Clients:
    """Stubs of the services, by the addresses that config.json names."""

    def __init__(self, addresses: Mapping[str, str], *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._addresses = dict(addresses)
        self._retry_seconds = retry_seconds
        self._channels: dict[str, grpc.Channel] = {}

    def channel(self, service: str) -> grpc.Channel:
        if service not in self._addresses:
            raise _errors.PlatformUnavailableException(
                f"config.json names no address of the service {service!r}.", target=service, hint="start the stack again with `make up`"
            )
        if service not in self._channels:
            self._channels[service] = grpc.insecure_channel(self._addresses[service], options=_OPTIONS)
        return self._channels[service]

    def _stub(self, service: str, module: str, stub: str) -> Any:
        return getattr(importlib.import_module(f"trainyard.{module}_pb2_grpc"), stub)(self.channel(service))

    @cached_property
    def jobs(self) -> Any:
        return self._stub("scheduler", "job.v1.job", "JobServiceStub")

    @cached_property
    def compute(self) -> Any:
        return self._stub("scheduler", "cluster.v1.cluster", "ComputeServiceStub")

    @cached_property
    def datasets(self) -> Any:
        return self._stub("dataset", "dataset.v1.dataset", "DatasetServiceStub")

    @cached_property
    def models(self) -> Any:
        return self._stub("registry", "model.v1.model", "ModelServiceStub")

    @cached_property
    def endpoints(self) -> Any:
        return self._stub("serving", "endpoint.v1.endpoint", "EndpointServiceStub")

    @cached_property
    def environments(self) -> Any:
        return self._stub("registry", "environment.v1.environment", "EnvironmentServiceStub")

    @cached_property
    def history(self) -> Any:
        return self._stub("history", "history.v1.history", "HistoryServiceStub")

    @cached_property
    def events(self) -> Any:
        return self._stub("history", "history.v1.history", "EventServiceStub")

    def call(
        self,
        method: Any,
        request: Any,
        otherwise: type[_errors.TrainyardException] = _errors.UserErrorException,
        *,
        timeout: float = DEADLINE_SECONDS,
        where: str = "",
        patience: float | None = None,
    ) -> Any:
        """The answer, or a typed exception. Safe to repeat: every request that changes something carries its submission id.

        patience: seconds for all attempts, where fewer than usual.
        """
        retry_seconds = self._retry_seconds
        if patience is not None:
            timeout, retry_seconds = min(timeout, patience), min(retry_seconds, patience)
        retrying = Retrying(
            retry=retry_if_exception(is_unavailable),
            stop=stop_after_delay(retry_seconds),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        )
        try:
            return retrying(method, request, timeout=timeout)
        except grpc.RpcError as error:
            raise _errors.from_rpc(error, otherwise, where) from error

    def pages(self, method: Any, request: Any, otherwise: type[_errors.TrainyardException] = _errors.UserErrorException, **how: Any) -> Any:
        """As `call`: each answer of a list that comes in pages."""
        while True:
            answer = self.call(method, request, otherwise, **how)
            yield answer
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
