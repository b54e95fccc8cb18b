"""Wakes endpoints: a call to the serving service, at most once a second for each."""

from __future__ import annotations

import threading
import time

import grpc

_METHOD = "/trainyard.endpoint.v1.EndpointService/WakeEndpoint"
_PAUSE_SECONDS, _PATIENCE_SECONDS = 1.0, 5.0


class Alarm:
    def __init__(self, control: str) -> None:
        """`control`: host:port of EndpointService; "" wakes nobody."""
        self._channel = grpc.insecure_channel(control) if control else None
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def __call__(self, endpoint: str) -> None:
        with self._lock:
            now = time.monotonic()
            if self._channel is None or now - self._last.get(endpoint, 0.0) < _PAUSE_SECONDS:
                return
            self._last[endpoint] = now
        # WakeEndpoint has one field, the name, whose number is 1: tag, length, text.
        name = endpoint.encode()
        try:
            self._channel.unary_unary(_METHOD, bytes, bytes)(b"\x0a" + bytes([len(name)]) + name, timeout=_PATIENCE_SECONDS)
        except grpc.RpcError:
            return  # asked again while callers wait
