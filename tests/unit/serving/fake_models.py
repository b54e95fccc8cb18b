"""Models that a front is tested on without TensorFlow: they answer with what they are asked, whatever its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from services.serving.model_server.errors import FAILED_PRECONDITION, NOT_FOUND, ServeError
from services.serving.model_server.served import State, Statistics, VersionStatus
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature, Tensor
from services.serving.model_server.tensors import TYPES
from services.serving.model_server.v2_types import BY_NAME

FLOAT, STRING, COMPLEX64 = 1, 7, 8


def a_signature(name: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Signature:
    return Signature(name, "tensorflow/serving/predict", inputs, outputs)


def an_echo(name: str, dtype: int, shape: tuple[int, ...] | None = None) -> Signature:
    """y is x."""
    return a_signature(name, {"x": Tensor("x:0", dtype, shape)}, {"y": Tensor("y:0", dtype, shape)})


def signatures() -> dict[str, Signature]:
    """The default one takes rows of two floats; beside it there is one for every datatype, by its name, for any shape."""
    found = {name: an_echo(name, datatype.number) for name, datatype in BY_NAME.items()}
    found["complex"] = an_echo("complex", COMPLEX64)
    x, n = Tensor("a:0", FLOAT, (-1, 2)), Tensor("n:0", STRING, (-1,))
    found["two"] = a_signature("two", {"a": x, "n": n}, {"a_out": x, "n_out": n})
    found[DEFAULT_SIGNATURE] = an_echo(DEFAULT_SIGNATURE, FLOAT, (-1, 2))
    return found


@dataclass
class FakeServed:
    """`predict` gives each output the input of the same place in the signature."""

    name: str = "echo"
    version: int = 3
    platform: str = "tensorflow_savedmodel"
    prompt: bool = False
    signatures: Mapping[str, Signature] = field(default_factory=signatures)
    unserved: Mapping[str, str] = field(default_factory=dict)
    failure: Exception | None = None
    deadlines: list[float | None] = field(default_factory=list)

    def signature(self, name: str) -> Signature:
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise ServeError(FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return found

    def predict(
        self, signature: Signature, inputs: Mapping[str, Any], output_filter: Sequence[str] = (), deadline: float | None = None
    ) -> dict[str, Any]:
        self.deadlines.append(deadline)
        if self.failure:
            raise self.failure
        for alias, array in inputs.items():
            assert array.dtype == TYPES[signature.inputs[alias].dtype].array
        results = dict(zip(signature.outputs, (inputs[alias] for alias in signature.inputs), strict=True))
        return {alias: array for alias, array in results.items() if not output_filter or alias in output_filter}


@dataclass
class FakeModels:
    served: FakeServed = field(default_factory=FakeServed)
    states: dict[str, list[VersionStatus]] = field(default_factory=dict)
    ready: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    counted: Statistics = field(default_factory=lambda: Statistics(3))
    lent: int = 0
    observed: list[tuple[str, str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states.setdefault(self.served.name, [VersionStatus(self.served.version, State.AVAILABLE)])

    @contextmanager
    def borrow(self, name: str, version: int | None = None, label: str = "") -> Iterator[FakeServed]:
        if not any(
            it.state == State.AVAILABLE and version in (None, it.version) and name == self.served.name for it in self.states.get(name, [])
        ):
            raise ServeError(NOT_FOUND, f"Servable not found for request: Latest({name})")
        self.lent += 1
        try:
            yield self.served
        finally:
            self.lent -= 1

    def names(self) -> Sequence[str]:
        return list(self.states)

    def versions(self, name: str) -> Sequence[VersionStatus]:
        if not self.states.get(name):
            raise ServeError(NOT_FOUND, f"Could not find any versions of model {name}")
        return self.states[name]

    def statistics(self, name: str, version: int | None = None) -> Sequence[Statistics]:
        if name != self.served.name or version not in (None, self.counted.version):
            raise ServeError(NOT_FOUND, f"Could not find any versions of model {name}")
        return [self.counted]

    def load(self, name: str) -> None:
        self._ask("load", name)

    def unload(self, name: str) -> None:
        self._ask("unload", name)

    def _ask(self, what: str, name: str) -> None:
        if name not in self.states:
            raise ServeError(NOT_FOUND, f"there is no model {name}")
        self.asked.append((what, name))

    def is_ready(self) -> bool:
        return self.ready

    def observe(self, model: str, call: str, entrypoint: str, code: int, nanoseconds: int) -> None:
        self.observed.append((model, call, entrypoint, code))
