"""Calls that share a run of the graph: TensorFlow Serving's batching parameters, one queue of batches for each kind of call.

A kind is a signature, the outputs wanted and the shape of a row: calls of one kind only are joined, and each gets its own rows back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.serving.model_server.errors import DEADLINE_EXCEEDED, FAILED_PRECONDITION, INTERNAL, UNAVAILABLE, ServeError, invalid
from services.serving.model_server.signatures import Signature

_NANOSECONDS = 1_000_000_000
Run = Callable[[Signature, tuple[str, ...], Sequence[Any]], list[Any]]
Kind = tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class BatchingParameters:
    """TensorFlow Serving's, with its defaults."""

    max_batch_size: int = 1000
    """Rows, of a run and of a call."""
    batch_timeout_micros: int = 0
    """What a batch waits for company; 0: only while all threads are busy."""
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    allowed_batch_sizes: tuple[int, ...] = ()
    """A batch is filled up to the next of these with copies of its first row."""
    pad_variable_length_inputs: bool = False
    """Rows of different shapes share a batch, filled up with zeros."""
    enable_large_batch_splitting: bool = False
    """A call may have more rows than a run: it is cut into runs, each with up to max_execution_batch_size rows."""
    max_execution_batch_size: int = 0
    """0: max_batch_size. Without large batch splitting it has no effect."""

    @property
    def rows_of_a_run(self) -> int:
        return (self.enable_large_batch_splitting and self.max_execution_batch_size) or self.max_batch_size

    def __post_init__(self) -> None:
        sizes, most = self.allowed_batch_sizes, self.rows_of_a_run
        if min(self.max_batch_size, self.max_enqueued_batches, self.num_batch_threads) < 1 or self.batch_timeout_micros < 0:
            raise ValueError("max_batch_size, max_enqueued_batches and num_batch_threads are at least 1, batch_timeout_micros at least 0")
        if not 0 < most <= self.max_batch_size:
            raise ValueError(f"max_execution_batch_size {most} is not between 1 and max_batch_size {self.max_batch_size}")
        if sizes and (sizes[-1] != most or list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
            last = "max_batch_size" if most == self.max_batch_size else "max_execution_batch_size"
            raise ValueError(f"allowed_batch_sizes {list(sizes)} must rise and end with {last} {most}")


@dataclass(eq=False)
class _Call:
    arrays: Sequence[Any]
    rows: int
    deadline: float | None
    begin: int
    done: threading.Event = field(default_factory=threading.Event)
    left: bool = False  # whoever asked has gone
    results: list[Any] | None = None
    error: ServeError | None = None
    queue_ns: int = 0
    compute_ns: int = 0


@dataclass(eq=False)
class _Batch:
    kind: Kind
    signature: Signature
    wanted: tuple[str, ...]
    begin: int
    calls: list[_Call] = field(default_factory=list)
    rows: int = 0


class Batcher:
    """Thread safe."""

    def __init__(self, parameters: BatchingParameters, run: Run) -> None:
        self._parameters = parameters
        self._run = run
        self._batches: list[_Batch] = []  # oldest first
        self._open: dict[Kind, _Batch] = {}  # the last of its kind, where it has room
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self._running = 0  # batches, of which num_batch_threads are the most
        self._threads = [
            threading.Thread(target=self._work, name="batch", daemon=True) for _ in range(max(parameters.num_batch_threads, 1))
        ]
        for thread in self._threads:
            thread.start()

    def call(
        self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any], deadline: float | None
    ) -> tuple[list[Any], int, int]:
        """The outputs, and the nanoseconds in the queue and in the graph."""
        rows, most, begin = self._rows(arrays), self._parameters.rows_of_a_run, time.monotonic_ns()
        if rows <= most:
            call = _Call(arrays, rows, deadline, begin)
            alone = self._enqueue(signature, wanted, call, may_be_alone=True)
            if alone is not None:
                self._work_on(alone)
            return _waited(call), call.queue_ns, call.compute_ns
        parts = [
            _Call([array[first : first + most] for array in arrays], min(most, rows - first), deadline, begin)
            for first in range(0, rows, most)
        ]
        try:
            for part in parts:
                self._enqueue(signature, wanted, part, may_be_alone=False)
            results = [_waited(part) for part in parts]
        except ServeError:
            for part in parts:
                part.left = True
            raise
        return _together(wanted, results), max(it.queue_ns for it in parts), sum(it.compute_ns for it in parts)

    def close(self) -> None:
        """What waits is still run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _rows(self, arrays: Sequence[Any]) -> int:
        if not arrays or any(not array.ndim for array in arrays):
            raise invalid("Batching Run() input tensors must have at least one dimension")
        rows = len(arrays[0])
        if any(len(array) != rows for array in arrays):
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        if rows == 0:
            raise invalid("Batching Run() input tensors must have at least one row")
        if rows > self._parameters.max_batch_size:
            raise invalid(f"a call of {rows} rows is larger than max_batch_size {self._parameters.max_batch_size}")
        return rows

    def _enqueue(self, signature: Signature, wanted: tuple[str, ...], call: _Call, *, may_be_alone: bool) -> _Batch | None:
        """A batch that the caller runs itself: where nobody is to be waited for and a thread would be free, to wake it would only cost."""
        rank_only = self._parameters.pad_variable_length_inputs
        shapes = tuple((-1,) * (it.ndim - 1) if rank_only else it.shape[1:] for it in call.arrays)
        kind = signature.name, wanted, shapes
        with self._changed:
            if self._closed:
                raise ServeError(UNAVAILABLE, "the model is being unloaded")
            batch = self._open.get(kind)
            if batch is None or batch.rows + call.rows > self._parameters.rows_of_a_run:
                if len(self._batches) >= self._parameters.max_enqueued_batches:
                    raise ServeError(UNAVAILABLE, f"{len(self._batches)} batches wait, which is all that max_enqueued_batches allows")
                batch = self._open[kind] = _Batch(kind, signature, wanted, call.begin)
                self._batches.append(batch)
            batch.calls.append(call)
            batch.rows += call.rows
            if may_be_alone and self._batches == [batch] and self._may_run() and not self._parameters.batch_timeout_micros:
                return self._taken(batch)
            if self._may_run():
                self._changed.notify()
            return None

    def _may_run(self) -> bool:
        return self._running < self._parameters.num_batch_threads

    def _taken(self, batch: _Batch) -> _Batch:
        self._batches.remove(batch)
        if self._open.get(batch.kind) is batch:
            del self._open[batch.kind]
        self._running += 1
        return batch

    # -- the threads that run them

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._work_on(batch)

    def _work_on(self, batch: _Batch) -> None:
        now, clock = time.monotonic_ns(), time.monotonic()
        calls = []
        for call in batch.calls:
            if call.left or (call.deadline is not None and clock >= call.deadline):
                call.error = ServeError(DEADLINE_EXCEEDED, "the deadline of the call passed while it was in the queue")
                call.done.set()
                continue
            call.queue_ns = now - call.begin
            calls.append(call)
        try:
            if calls:
                self._serve(batch, calls)
        finally:
            with self._changed:
                self._running -= 1
                if self._closed:
                    self._changed.notify_all()
                elif self._batches:
                    self._changed.notify()

    def _next(self) -> _Batch | None:
        """The oldest batch that is full or has waited long enough; None at the end."""
        timeout = self._parameters.batch_timeout_micros * 1000
        with self._changed:
            while True:
                now, may_run = time.monotonic_ns(), self._may_run()
                for batch in self._batches if may_run else ():
                    full = batch.rows >= self._parameters.rows_of_a_run or self._open.get(batch.kind) is not batch
                    if full or now - batch.begin >= timeout or self._closed:
                        self._taken(batch)
                        self._changed.notify()  # somebody else watches over what still waits
                        return batch
                if self._closed and not self._batches:
                    return None
                wait = (self._batches[0].begin + timeout - now) / _NANOSECONDS if self._batches and may_run else None
                self._changed.wait(wait)

    def _serve(self, batch: _Batch, calls: Sequence[_Call]) -> None:
        begin = time.perf_counter_ns()
        try:
            rows = self._split(self._run(batch.signature, batch.wanted, self._joined(calls)), calls, batch)
        except Exception as error:
            if len(calls) > 1:  # one of them may be to blame, and the others are none the worse for it
                for call in calls:
                    self._serve(batch, [call])
                return
            calls[0].error = error if isinstance(error, ServeError) else ServeError(INTERNAL, f"{type(error).__name__}: {error}")
            calls[0].done.set()
            return
        took = time.perf_counter_ns() - begin
        for call, results in zip(calls, rows, strict=True):
            call.results, call.compute_ns = results, took
            call.done.set()

    def _joined(self, calls: Sequence[_Call]) -> list[Any]:
        joined = []
        for arrays in zip(*(call.arrays for call in calls), strict=True):
            parts = list(arrays)
            if self._parameters.pad_variable_length_inputs:
                parts = _padded(parts)
            rows = sum(map(len, parts))
            size = next((it for it in self._parameters.allowed_batch_sizes if it >= rows), rows)
            if size > rows:
                parts.append(np.repeat(parts[0][:1], size - rows, axis=0))
            joined.append(parts[0] if len(parts) == 1 else np.concatenate(parts))
        return joined

    def _split(self, results: Sequence[Any], calls: Sequence[_Call], batch: _Batch) -> list[list[Any]]:
        rows = sum(call.rows for call in calls)
        size = next((it for it in self._parameters.allowed_batch_sizes if it >= rows), rows)
        for alias, array in zip(batch.wanted, results, strict=True):
            if not array.ndim or len(array) != size:
                raise ServeError(
                    FAILED_PRECONDITION,
                    f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors: "
                    f"output {alias} of signature {batch.signature.name} has shape {list(array.shape)} for {size} rows",
                )
        split, first = [], 0
        for call in calls:
            # Copies: a view of one row would keep the whole batch in memory.
            split.append([array[first : first + call.rows].copy() for array in results])
            first += call.rows
        return split


def _waited(call: _Call) -> list[Any]:
    patience = None if call.deadline is None or call.deadline == float("inf") else max(call.deadline - time.monotonic(), 0)
    if not call.done.wait(patience):
        call.left = True
        raise ServeError(DEADLINE_EXCEEDED, "the deadline of the call passed before its batch was through")
    if call.error is not None:
        raise call.error
    assert call.results is not None
    return call.results


def _together(wanted: tuple[str, ...], parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The outputs of a call that was cut."""
    joined = []
    for alias, arrays in zip(wanted, zip(*parts, strict=True), strict=True):
        if len({array.shape[1:] for array in arrays}) > 1:
            raise ServeError(FAILED_PRECONDITION, f"output {alias} has rows of different shapes in the runs that the call was cut into")
        joined.append(np.concatenate(arrays))
    return joined


def _padded(arrays: Sequence[Any]) -> list[Any]:
    shape = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    empty: Any = b"" if arrays[0].dtype == object else 0
    padded = []
    for array in arrays:
        if array.shape[1:] == shape:
            padded.append(array)
            continue
        full = np.full((len(array), *shape), empty, dtype=array.dtype)
        full[tuple(slice(size) for size in array.shape)] = array
        padded.append(full)
    return padded
