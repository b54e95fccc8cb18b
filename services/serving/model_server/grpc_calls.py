"""From a method on messages to a gRPC handler: parsing, deadlines, errors in words, and counting."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from services.serving.model_server.errors import CANCELLED, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN, ServeError, invalid

CODES = {code.value[0]: code for code in grpc.StatusCode}
Work = Callable[[Any, float | None], Any]
Observe = Callable[[str, str, str, int, int], None]
"""Model, call, entrypoint, code, nanoseconds."""


@dataclass(frozen=True)
class Service:
    """A gRPC service of this server, and what it is called by."""

    name: str
    methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]]

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        return grpc.method_handlers_generic_handler(self.name, dict(self.methods))


def unary(work: Work, request_class: Any, call: str, observe: Observe, named: Callable[[Any], str]) -> grpc.RpcMethodHandler[Any, Any]:
    """`named`: the model that a request is about, for the count.

    Bytes come in unparsed so that garbage is answered with words, not with gRPC's bare INTERNAL.
    """

    def answer(raw: bytes, context: grpc.ServicerContext) -> Any:
        begin, code, model = time.perf_counter_ns(), 0, ""
        try:
            try:
                request = request_class.FromString(raw)
            except Exception as error:  # DecodeError; its place differs between versions of protobuf
                raise invalid(f"the request is no {request_class.DESCRIPTOR.full_name}") from error
            model = named(request)
            return work(request, _deadline(context))
        except ServeError as error:
            code = error.code
            context.abort(CODES.get(code, grpc.StatusCode.UNKNOWN), error.message)
        except Exception as error:
            code = INTERNAL
            traceback.print_exc(file=sys.stderr)
            context.abort(CODES[INTERNAL], f"{type(error).__name__}: {error}"[:1024])
        finally:
            observe(model, call, "GRPC", code if code in CODES else UNKNOWN, time.perf_counter_ns() - begin)

    return grpc.unary_unary_rpc_method_handler(answer, None, serialize)


def _deadline(context: grpc.ServicerContext) -> float | None:
    """By time.monotonic(). What waited too long for its turn is dropped here, and what nobody waits for any more."""
    if not context.is_active():
        raise ServeError(CANCELLED, "the caller has gone")
    remaining = context.time_remaining()
    if remaining is None:
        return None
    if remaining <= 0:
        raise ServeError(DEADLINE_EXCEEDED, "the deadline of the call passed before its turn came")
    return time.monotonic() + remaining


def serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
