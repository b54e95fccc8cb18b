"""Liveness by pulses, and agents made to match the pools."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from services.scheduler.domain import Agent, Pool
from services.scheduler.liveness import Liveness
from services.scheduler.nodes import Reconciler
from services.scheduler.pool_health import PoolHealth
from services.scheduler.ports import NodeRefused, NodeState, NodeStatus, ProviderTrouble
from tests.unit.scheduler.story import START
from trainyard.cluster.v1.cluster_pb2 import Resources

KNOWN = {"agent-0": "one"}


def test_an_agent_that_beats_is_never_silent() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4)

    for _ in range(20):
        liveness.beat("agent-0", "one")
        tick = liveness.pulse(KNOWN)
        assert (tick.silent, tick.given_up) == ((), ())


def test_silence_shows_first_and_is_given_up_later() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4)
    liveness.beat("agent-0", "one")

    ticks = [liveness.pulse(KNOWN) for _ in range(4)]

    assert [tick.silent for tick in ticks] == [(), ("agent-0",), ("agent-0",), ()]
    assert [tick.given_up for tick in ticks] == [(), (), (), ("agent-0",)]


def test_a_beat_takes_silence_back() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4)
    for _ in range(3):
        liveness.pulse(KNOWN)

    liveness.beat("agent-0", "one")

    assert liveness.pulse(KNOWN).heard == ("agent-0",)
    assert liveness.silent() == frozenset()


def test_beats_of_an_earlier_process_do_not_keep_its_successor_alive() -> None:
    liveness = Liveness(suspect_after=2, lost_after=3)

    for _ in range(3):
        liveness.beat("agent-0", "earlier")
        tick = liveness.pulse(KNOWN)
    assert tick.given_up == ()

    assert liveness.pulse(KNOWN).given_up == ("agent-0",)


def test_a_new_scheduler_gives_everybody_a_fresh_start() -> None:
    assert Liveness(suspect_after=1, lost_after=2).pulse(KNOWN).given_up == ()


class Provider:
    def __init__(self, **states: NodeState) -> None:
        self.known = {name.replace("_", "-"): state for name, state in states.items()}
        self.calls: list[str] = []
        self.unknown: set[str] = set()
        self.away = ""

    async def states(self, names: Collection[str], heard: Collection[str]) -> dict[str, NodeStatus]:
        if self.away:
            raise ProviderTrouble(self.away)
        return {name: NodeStatus(state, "no luck" if state is NodeState.BROKEN else "") for name, state in self.known.items()}

    async def start(self, agent_id: str) -> None:
        if agent_id in self.unknown:
            raise NodeRefused("BAD_NAME")
        self.calls.append(f"start {agent_id}")
        self.known[agent_id] = NodeState.UP

    async def stop(self, agent_id: str) -> None:
        self.calls.append(f"stop {agent_id}")
        self.known[agent_id] = NodeState.LEAVING


def a_reconciler(provider: Provider, wanted: tuple[str, ...] = (), registered: tuple[str, ...] = ()) -> tuple[Reconciler, Any]:
    pool = Pool("pool", "s", "LOCAL", "dedicated", 0, 4, 120, Resources(), "", START, agent_ids=wanted)
    agents = {name: Agent(name, "one", "", Resources(), START) for name in registered}
    handler: Any = SimpleNamespace(state=SimpleNamespace(pools={"pool": pool}, agents=agents), health=PoolHealth(10))
    return Reconciler(handler, provider), handler


async def test_nodes_that_a_pool_has_are_started_and_others_stopped() -> None:
    provider = Provider(agent_1=NodeState.UP)
    reconciler, _ = a_reconciler(provider, wanted=("agent-0",))

    await reconciler.look(0.0)

    assert provider.calls == ["stop agent-1", "start agent-0"]


async def test_a_second_look_changes_nothing() -> None:
    provider = Provider()
    reconciler, _ = a_reconciler(provider, wanted=("agent-0",))

    await reconciler.look(0.0)
    await reconciler.look(5.0)

    assert provider.calls == ["start agent-0"]


async def test_a_registered_node_whose_process_is_gone_is_started() -> None:
    provider = Provider()
    reconciler, _ = a_reconciler(provider, wanted=("agent-0",), registered=("agent-0",))

    await reconciler.look(0.0)

    assert provider.calls == ["start agent-0"]


async def test_a_process_that_never_registers_is_ended_after_a_minute() -> None:
    provider = Provider(agent_0=NodeState.UP)
    reconciler, _ = a_reconciler(provider, wanted=("agent-0",))

    await reconciler.look(0.0)
    await reconciler.look(59.0)
    assert provider.calls == []
    await reconciler.look(61.0)

    assert provider.calls == ["stop agent-0"]


async def test_a_node_that_does_not_come_up_is_told_and_tried_again() -> None:
    provider = Provider(agent_0=NodeState.BROKEN)
    reconciler, handler = a_reconciler(provider, wanted=("agent-0",))

    await reconciler.look(0.0)

    assert handler.health.broken() == {"agent-0": "no luck"}
    assert provider.calls == ["start agent-0"]


async def test_a_node_that_the_provider_does_not_know_is_broken_and_the_next_one_is_started() -> None:
    provider = Provider()
    provider.unknown = {"agent-0"}
    reconciler, handler = a_reconciler(provider, wanted=("agent-0", "agent-1"))

    await reconciler.look(0.0)

    assert handler.health.broken() == {"agent-0": "BAD_NAME"}
    assert provider.calls == ["start agent-1"]


async def test_a_provider_that_does_not_answer_is_told_and_asked_again() -> None:
    provider = Provider()
    reconciler, handler = a_reconciler(provider, wanted=("agent-0",))
    provider.away = "no engine answers"

    await reconciler.look(0.0)
    told = handler.health.errors(handler.state.pools["pool"])
    provider.away = ""
    await reconciler.look(5.0)

    assert told == ["no engine answers"]
    assert handler.health.errors(handler.state.pools["pool"]) == []
    assert provider.calls == ["start agent-0"]


# -- offers


def test_an_offer_is_overdue_after_so_many_pulses_and_not_before() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4, overdue_after=3)

    ticks = [liveness.pulse(KNOWN, [("run", 1)]) for _ in range(4)]

    assert [tick.overdue for tick in ticks] == [(), (), (("run", 1),), (("run", 1),)]


def test_each_offer_has_its_own_count() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4, overdue_after=2)
    liveness.pulse(KNOWN, [("run", 1)])

    assert liveness.pulse(KNOWN, [("run", 2)]).overdue == ()


def test_who_declined_is_asked_again_after_some_pulses() -> None:
    liveness = Liveness(suspect_after=2, lost_after=4)
    liveness.declined("agent-0")

    asked_again = []
    for _ in range(5):
        asked_again.append("agent-0" not in liveness.declining())
        liveness.pulse(KNOWN)

    assert asked_again == [False] * 5
    assert liveness.declining() == frozenset()
