"""Calls that share runs: whatever comes together, each gets its own rows back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.serving.model_server.batching import Batcher, BatchingParameters
from services.serving.model_server.errors import DEADLINE_EXCEEDED, FAILED_PRECONDITION, INVALID_ARGUMENT, UNAVAILABLE, ServeError
from services.serving.model_server.signatures import Signature, Tensor

INT64 = 9
_X = {"x": Tensor("x:0", INT64, None)}
SIGNATURE, OTHER = Signature("one", "m", _X, _X), Signature("other", "m", _X, _X)


class Graph:
    """Gives back what it is given and one thing more; waits while it is held; keeps the sizes of its runs."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)

    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        self.sizes.append(len(arrays[0]))
        self.entered.release()
        self.go.wait(30)
        if any((array == -1).any() for array in arrays):
            raise ServeError(INVALID_ARGUMENT, "no -1")
        return [arrays[0] * 10 + (1 if signature is SIGNATURE else 2)]


@contextmanager
def batcher(graph: Graph, **parameters: Any) -> Iterator[Batcher]:
    made = Batcher(BatchingParameters(**parameters), graph.run)
    try:
        yield made
    finally:
        graph.go.set()
        made.close()


def call(batcher: Batcher, rows: Any, signature: Signature = SIGNATURE, deadline: float | None = None) -> Any:
    return batcher.call(signature, ("x",), [np.array(rows, np.int64)], deadline)[0][0].tolist()


def held(graph: Graph, batcher: Batcher, pool: ThreadPoolExecutor) -> Callable[[], Any]:
    """A call that occupies the only thread, so that what comes next has to wait; gives what lets it go."""
    graph.go.clear()
    first = pool.submit(call, batcher, [0])
    graph.entered.acquire()

    def go() -> Any:
        graph.go.set()
        return first.result(30)

    return go


def queued(batcher: Batcher, count: int) -> None:
    deadline = time.monotonic() + 30
    while sum(len(batch.calls) for batch in batcher._batches) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


_call = st.tuples(
    st.booleans(),
    st.integers(0, 3).flatmap(
        lambda width: st.lists(st.lists(st.integers(0, 1 << 40), min_size=width, max_size=width), min_size=1, max_size=4)
    ),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(_call, min_size=1, max_size=24),
    st.sampled_from(
        [
            {"max_batch_size": 4},
            {"max_batch_size": 8, "allowed_batch_sizes": (2, 5, 8)},
            {"max_batch_size": 64, "batch_timeout_micros": 2000},
            {"max_batch_size": 16, "num_batch_threads": 3, "batch_timeout_micros": 500},
            {"max_batch_size": 4, "enable_large_batch_splitting": True, "max_execution_batch_size": 2, "allowed_batch_sizes": (1, 2)},
            {"max_batch_size": 4, "enable_large_batch_splitting": True, "max_execution_batch_size": 3, "num_batch_threads": 2},
        ]
    ),
)
def test_replies_are_never_mixed(calls: list[tuple[bool, list[list[int]]]], parameters: dict[str, Any]) -> None:
    graph = Graph()
    with batcher(graph, max_enqueued_batches=1000, **parameters) as made, ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(call, made, rows, SIGNATURE if first else OTHER) for first, rows in calls]

        for (first, rows), answer in zip(calls, answers, strict=True):
            assert answer.result(30) == (np.array(rows, np.int64).reshape(len(rows), -1) * 10 + (1 if first else 2)).tolist()


def test_what_waits_together_runs_together() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=4, batch_timeout_micros=0) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        waiting = [pool.submit(call, made, [number]) for number in range(1, 5)]
        queued(made, 4)
        go()

        assert sorted(it.result(30) for it in waiting) == [[11], [21], [31], [41]]
    assert graph.sizes == [1, 4]


def test_who_finds_nobody_to_wait_for_runs_alone_and_at_once() -> None:
    graph, ran_in = Graph(), set[int]()

    def run(signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        ran_in.add(threading.get_ident())
        return graph.run(signature, wanted, arrays)

    made = Batcher(BatchingParameters(max_batch_size=4), run)

    assert call(made, [1]) == [11]
    assert call(made, [2]) == [21]

    assert ran_in == {threading.get_ident()}
    made.close()


def test_its_close_waits_for_whoever_runs_alone_and_for_what_came_meanwhile() -> None:
    graph = Graph()
    made = Batcher(BatchingParameters(max_batch_size=1, num_batch_threads=2), graph.run)
    with ThreadPoolExecutor(8) as pool:
        graph.go.clear()
        waiting = [pool.submit(call, made, [number]) for number in (1, 2, 3, 4)]
        for _ in range(2):
            assert graph.entered.acquire(timeout=30)
        queued(made, 2)
        closing = pool.submit(made.close)
        graph.go.set()

        closing.result(30)
        assert sorted(it.result(30) for it in waiting) == [[11], [21], [31], [41]]


def test_a_full_batch_does_not_wait_for_its_time() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=2, batch_timeout_micros=3_600_000_000) as made, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(call, made, [number]) for number in (1, 2)]

        assert sorted(it.result(30) for it in both) == [[11], [21]]
    assert graph.sizes == [2]


def test_rows_of_another_shape_or_another_signature_run_apart() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=8) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        waiting = [
            pool.submit(call, made, [[1]]),
            pool.submit(call, made, [[1, 2]]),
            pool.submit(call, made, [[3]]),
            pool.submit(call, made, [[4]], OTHER),
        ]
        queued(made, 4)
        go()

        assert [it.result(30) for it in waiting] == [[[11]], [[11, 21]], [[31]], [[42]]]
    assert sorted(graph.sizes) == [1, 1, 1, 2]


def test_rows_of_different_lengths_are_padded_where_that_is_wanted() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=8, pad_variable_length_inputs=True) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        waiting = [pool.submit(call, made, [[1]]), pool.submit(call, made, [[1, 2]])]
        queued(made, 2)
        go()

        assert [it.result(30) for it in waiting] == [[[11, 1]], [[11, 21]]]


def test_a_neighbour_that_fails_takes_nobody_with_it() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=8) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        waiting = [pool.submit(call, made, [number]) for number in (5, -1, 6)]
        queued(made, 3)
        go()

        assert [waiting[0].result(30), waiting[2].result(30)] == [[51], [61]]
        with pytest.raises(ServeError, match="no -1"):
            waiting[1].result(30)


def test_what_is_late_is_dropped_from_the_queue() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=1) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)

        with pytest.raises(ServeError) as caught:
            call(made, [7], deadline=time.monotonic() + 0.01)
        go()

        assert caught.value.code == DEADLINE_EXCEEDED
        assert call(made, [8]) == [81]
    assert len(graph.sizes) == 2


def test_a_full_queue_is_told() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=1, max_enqueued_batches=1) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        waiting = pool.submit(call, made, [1])
        queued(made, 1)

        with pytest.raises(ServeError) as caught:
            call(made, [2])
        go()

        assert caught.value.code == UNAVAILABLE
        assert waiting.result(30) == [11]


def test_what_cannot_be_batched_is_refused() -> None:
    graph = Graph()
    with batcher(graph, max_batch_size=2) as made:
        for rows, text in [(5, "at least one dimension"), ([], "at least one row"), ([1, 2, 3], "larger than max_batch_size 2")]:
            with pytest.raises(ServeError, match=text) as caught:
                call(made, rows)
            assert caught.value.code == INVALID_ARGUMENT
        with pytest.raises(ServeError, match="equal 0th-dimension size"):
            made.call(SIGNATURE, ("x",), [np.zeros(1), np.zeros(2)], None)


def test_an_output_without_a_row_for_each_input_is_refused() -> None:
    made = Batcher(BatchingParameters(), lambda *_: [np.array(3)])

    with pytest.raises(ServeError, match="0th dimension does not equal") as caught:
        call(made, [1, 2])
    made.close()

    assert caught.value.code == FAILED_PRECONDITION


def test_closing_runs_what_waits_and_takes_no_more() -> None:
    graph = Graph()
    made = Batcher(BatchingParameters(max_batch_size=8, batch_timeout_micros=3_600_000_000), graph.run)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(call, made, [1])
        queued(made, 1)

        made.close()

        assert waiting.result(30) == [11]
        with pytest.raises(ServeError, match="unloaded"):
            call(made, [2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"batch_timeout_micros": -1},
        {"max_batch_size": 4, "allowed_batch_sizes": (1, 2)},
        {"allowed_batch_sizes": (2, 1)},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_batch_size"):
        BatchingParameters(**wrong)


_CUT = {"max_batch_size": 10, "enable_large_batch_splitting": True, "max_execution_batch_size": 4}


def test_a_large_call_is_cut_into_runs_and_its_end_shares_one() -> None:
    graph = Graph()
    with batcher(graph, **_CUT) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        large = pool.submit(call, made, list(range(10)))
        queued(made, 3)
        small = pool.submit(call, made, [70, 80])
        queued(made, 4)
        go()

        assert large.result(30) == [number * 10 + 1 for number in range(10)]
        assert small.result(30) == [701, 801]
    assert graph.sizes == [1, 4, 4, 4]


def test_a_call_that_is_larger_than_any_may_be_is_refused() -> None:
    with batcher(Graph(), **_CUT) as made, pytest.raises(ServeError, match="11 rows is larger than max_batch_size 10"):
        call(made, list(range(11)))


def test_where_one_run_of_a_large_call_fails_so_does_the_call_and_no_other() -> None:
    graph = Graph()
    with batcher(graph, **_CUT) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        large = pool.submit(call, made, [*range(9), -1])
        queued(made, 3)
        small = pool.submit(call, made, [70])
        queued(made, 4)
        go()

        with pytest.raises(ServeError, match="no -1"):
            large.result(30)
        assert small.result(30) == [701]


def test_a_large_call_for_which_the_queue_has_no_room_leaves_nothing_behind() -> None:
    graph = Graph()
    with batcher(graph, max_enqueued_batches=2, **_CUT) as made, ThreadPoolExecutor(8) as pool:
        go = held(graph, made, pool)
        with pytest.raises(ServeError, match="max_enqueued_batches"):
            call(made, list(range(10)))
        go()

        assert call(made, [7]) == [71]
    assert graph.sizes == [1, 1], "what was in the queue already is not run for nobody"
