"""One inference as the Open Inference Protocol means it, whatever form it came in: checked against the signature, run, and what comes out.

Texts and codes are Triton's where it has one for the case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from services.serving.model_server import v2_types
from services.serving.model_server.errors import FAILED_PRECONDITION, NOT_FOUND, UNAVAILABLE, ServeError, invalid
from services.serving.model_server.served import Models, Served, State, VersionStatus
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature, Tensor
from services.serving.model_server.v2_types import Datatype

_MICROSECONDS = 1e6


class Sent(NamedTuple):
    """An input as it came: `read` makes it a flat array of so many elements."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    read: Callable[[Datatype, int], Any]


class Asked(NamedTuple):
    model: str
    version: str
    id: str
    inputs: Sequence[Sent]
    outputs: Sequence[str] = ()
    """Those wanted; none: all."""
    signature: str = ""
    deadline: float | None = None
    """By time.monotonic()."""


class Output(NamedTuple):
    name: str
    datatype: Datatype
    array: Any


class Answered(NamedTuple):
    model: str
    version: str
    id: str
    outputs: Sequence[Output]
    prompt: bool = False
    """As the model says of itself."""


def infer(models: Models, asked: Asked) -> Answered:
    """Raises ServeError."""
    with borrowed(models, asked.model, asked.version) as served:
        signature = chosen(served, asked.signature)
        wanted = _wanted(asked, signature)
        inputs = _inputs(asked, signature)
        results = served.predict(signature, inputs, tuple(wanted), asked.deadline)
        outputs = [Output(name, datatype, results[name]) for name, datatype in wanted.items()]
        return Answered(served.name, str(served.version), asked.id, outputs, served.prompt)


def version_number(text: str) -> int | None:
    """None where the choice is the server's."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise invalid(f"failed to get model version from specified version string '{text[:100]}', version should be an integral value > 0")
    return int(text)


class borrowed:  # noqa: N801 - used as a function is; a generator would cost each call a microsecond
    """A version that answers, or Triton's words for why there is none."""

    __slots__ = ("_lent", "_models", "_name", "_version")

    def __init__(self, models: Models, name: str, version: str) -> None:
        self._models, self._name, self._version = models, name, version

    def __enter__(self) -> Served:
        number = version_number(self._version)
        try:
            self._lent = self._models.borrow(self._name, number)
            return self._lent.__enter__()
        except ServeError as error:
            raise _missing(self._models, self._name, number, error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lent.__exit__(kind, error, trace)


def _missing(models: Models, name: str, version: int | None, error: ServeError) -> ServeError:
    if error.code not in (NOT_FOUND, UNAVAILABLE):
        return error
    unknown = f"Request for unknown model: '{name}'"
    if name not in models.names():
        return ServeError(NOT_FOUND, f"{unknown} is not found")
    if version is None:
        return ServeError(NOT_FOUND, f"{unknown} has no available versions")
    state = {it.version: it.state for it in known_versions(models, name)}.get(version)
    if state is None:
        return ServeError(NOT_FOUND, f"{unknown} version {version} is not found")
    return ServeError(UNAVAILABLE, f"{unknown} version {version} is not at ready state; it is {state.name.lower()}")


def known_versions(models: Models, name: str) -> Sequence[VersionStatus]:
    """Newest first; none of a model that is unknown, or of which nothing was ever there."""
    try:
        return models.versions(name)
    except ServeError as error:
        if error.code != NOT_FOUND:
            raise
        return ()


def is_ready(models: Models, name: str, version: str) -> bool:
    """An unknown model is not ready; a version that is no number is refused."""
    number = version_number(version)
    return any(it.state == State.AVAILABLE and number in (None, it.version) for it in known_versions(models, name))


def chosen(served: Served, name: str = "") -> Signature:
    try:
        return served.signature(name)
    except ServeError as error:
        if error.code != FAILED_PRECONDITION or (name or DEFAULT_SIGNATURE) in served.unserved:
            raise
        known = ", ".join(sorted(served.signatures))
        what = f"unexpected signature '{name[:100]}'" if name else "no default signature"
        raise invalid(f"{what} for model '{served.name}'; choose one of {known} with the parameter signature_name") from error


def _wanted(asked: Asked, signature: Signature) -> dict[str, Datatype]:
    """What has no datatype is refused before the work is done, and not after it."""
    for name in asked.outputs:
        if name not in signature.outputs:
            raise invalid(f"unexpected inference output '{name}' for model '{asked.model}'")
    return {name: v2_types.of(signature.outputs[name], name) for name in asked.outputs or signature.outputs}


def _inputs(asked: Asked, signature: Signature) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for sent in asked.inputs:
        tensor = signature.inputs.get(sent.name)
        if tensor is None:
            raise invalid(f"unexpected inference input '{sent.name}' for model '{asked.model}'")
        if sent.name in found:
            raise invalid(f"input '{sent.name}' already exists in request")
        found[sent.name] = _array(sent, tensor, asked.model)
    if len(found) != len(signature.inputs):
        missing = ",".join(f"'{name}'" for name in signature.inputs if name not in found)
        raise invalid(
            f"expected {len(signature.inputs)} inputs but got {len(found)} inputs for model '{asked.model}'. "
            f"Missing required input(s) [{missing}]."
        )
    return found


def _array(sent: Sent, tensor: Tensor, model: str) -> Any:
    datatype = v2_types.of(tensor, sent.name)
    if sent.datatype != datatype.name:
        raise invalid(f"inference input '{sent.name}' data-type is '{sent.datatype}', but model '{model}' expects '{datatype.name}'")
    size = v2_types.count(sent.shape, datatype, sent.name)
    if not _fits(sent.shape, tensor.shape):
        raise invalid(
            f"unexpected shape for input '{sent.name}' for model '{model}'. "
            f"Expected {v2_types.shown(tensor.shape or ())}, got {v2_types.shown(sent.shape)}"
        )
    return v2_types.shaped(sent.read(datatype, size), sent.shape, sent.name)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(have == want or want < 0 for have, want in zip(shape, wanted, strict=True))


# -- parameters that are the same in every form


def signature_name(value: Any) -> str:
    if not isinstance(value, str):
        raise invalid("parameter signature_name must be a string")
    return value


def deadline(timeout: Any, until: float | None) -> float | None:
    """The earlier one of Triton's parameter `timeout`, in microseconds (0: none), and of when the call itself ends."""
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 <= timeout < 1 << 63:
        raise invalid("parameter timeout must be a whole number of microseconds")
    if not timeout:
        return until
    wanted = time.monotonic() + timeout / _MICROSECONDS
    return wanted if until is None else min(wanted, until)


def refuse_shared_memory(parameters: Any, what: str) -> None:
    if "shared_memory_region" in parameters:
        raise invalid(f"{what} asks for shared memory, which this server does not offer; send and take the data in the messages")


def refuse_classification(parameters: Any, name: str) -> None:
    if "classification" in parameters:
        raise invalid(f"output '{name}' asks for a classification, which this server does not offer; take the tensor as it is")
