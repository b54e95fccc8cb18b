"""hvd.elastic: a ring that loses a node goes on at once with the others, and one that joins comes in; the scripts notice no more than a round."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.component.horovod.conftest import MakeNode
from tests.component.horovod.ranks import SCRIPTS, Node, gang_of
from tests.horovod_gangs import SECRET

pytestmark = [pytest.mark.component, pytest.mark.timeout(1800)]
_LAST, _GATE = 12, 4


async def _there(folder: Path, name: str, nodes: list[Node]) -> None:
    """Waits for a rank's mark; a rank that ends before is told with what it said."""
    while not (folder / name).exists():
        for rank in (it for node in nodes for it in node.ranks):
            assert not rank.output.done(), rank.output.result()
        await asyncio.sleep(0.05)


async def _begin(nodes: list[Node], folder: Path) -> list[str]:
    await nodes[0].ring.start(nodes[0].address, nodes[0].port, SECRET)
    gang, argv = gang_of(nodes, each=1), [str(SCRIPTS / "elastic.py"), str(_LAST), str(folder), str(_GATE)]
    for node in nodes:
        node.ring.formed(gang)
        await node.start(gang, argv)
    return argv


@pytest.mark.parametrize("lost", [0, 1], ids=["the first node", "the last node"])
async def test_the_loss_of_a_node_shrinks_the_ring_and_training_goes_on_from_the_last_commit(
    node: MakeNode, tmp_path: Path, lost: int
) -> None:
    nodes = [node(number, elastic=True) for number in (2, 3)]
    await _begin(nodes, tmp_path)
    await _there(tmp_path, f"{_GATE}.1-of-2", nodes)

    await nodes.pop(lost).lost()
    nodes[0].ring.formed(gang_of(nodes, each=1, round_=2))
    (tmp_path / "go").touch()

    told = await nodes[0].outputs()
    assert told[0].strip().splitlines()[-1] == f"rank 0 of 1: {_LAST} steps, value {_LAST}"
    assert (tmp_path / f"{_LAST}.0-of-1").exists()
    assert not (tmp_path / "1.0-of-1").exists()


async def test_a_node_that_joins_comes_in_with_the_state_of_the_others(node: MakeNode, tmp_path: Path) -> None:
    nodes = [node(2, elastic=True)]
    argv = await _begin(nodes, tmp_path)
    await _there(tmp_path, f"{_GATE}.0-of-1", nodes)

    nodes.append(node(3, elastic=True))
    grown = gang_of(nodes, each=1, round_=2)
    for each in nodes:
        each.ring.formed(grown)
    await nodes[1].start(grown, argv)
    (tmp_path / "go").touch()

    told = [text.strip().splitlines()[-1] for each in nodes for text in await each.outputs()]
    assert told == [f"rank {rank} of 2: {_LAST} steps, value {_LAST}" for rank in range(2)]
    assert (tmp_path / f"{_LAST}.1-of-2").exists()
    assert not (tmp_path / "1.1-of-2").exists()
