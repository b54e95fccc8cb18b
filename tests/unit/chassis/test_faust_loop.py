"""What the default loop does with faust's bookkeeping, without a broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from faust.types import TP
from intervaltree import IntervalTree

from services.chassis.loop.faust_loop import _Consumer
from tests.unit.chassis.small_service import PULSES

PLACE = TP(PULSES, 0)


class Message:
    def __init__(self, offset: int) -> None:
        self.tp, self.topic, self.offset, self.acked = PLACE, PLACE.topic, offset, False


def a_consumer() -> Any:
    """One that has read and committed the first eight."""
    made: Any = _Consumer.__new__(_Consumer)
    made.waiting = asyncio.Queue()
    made._read_offset, made._committed_offset = {PLACE: 7}, {PLACE: 8}
    made._acked, made._acked_index, made._gap = defaultdict(list), defaultdict(set), defaultdict(IntervalTree)
    return made


def acknowledge(consumer: Any, *offsets: int) -> None:
    committed = consumer._committed_offset[PLACE]
    for offset in offsets:
        if offset >= committed:
            consumer._acked[PLACE].append(offset)
            consumer._acked_index[PLACE].add(offset)


async def test_what_lies_behind_a_gap_is_committed_and_the_gap_costs_nothing() -> None:
    consumer = a_consumer()
    far = 10**12

    for offset in (8, far, far + 1):
        assert await consumer._hand_over(PLACE, Message(offset))
    acknowledge(consumer, 8, far, far + 1)

    assert consumer.waiting.qsize() == 3
    assert not consumer._gap[PLACE]
    assert consumer._new_offset(PLACE) == far + 2
