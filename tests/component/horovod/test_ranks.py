"""Horovod on two agents with two ranks each, without SSH and MPI: TensorFlow 2.15 by gradient tape, by Keras, and version 1's sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.trainer_agent.script_environment import TENSORFLOW_1
from tests.component.horovod.conftest import MakeNode
from tests.component.horovod.ranks import SCRIPTS, run_all

# The first test of all compiles Horovod.
pytestmark = [pytest.mark.component, pytest.mark.timeout(1800)]


async def test_four_ranks_on_two_agents_reduce_gather_and_broadcast(node: MakeNode) -> None:
    two_nodes = [node(2), node(3)]

    told = await run_all(two_nodes, [str(SCRIPTS / "allreduce.py")])

    assert told == [
        f"rank {rank} of 4, local {rank % 2} of 2, cross {rank // 2} of 2, MPI {rank} of 4, sum 6, gathered [0, 1, 2, 3], broadcast 7"
        for rank in range(4)
    ]


async def test_gradients_are_averaged_by_tape_and_all_ranks_end_with_the_same_weights(node: MakeNode) -> None:
    told = await run_all([node(2), node(3)], [str(SCRIPTS / "gradient_tape.py")])

    assert told == [f"rank {rank} of 4: weight 3.00, bias 1.00" for rank in range(4)]


async def test_keras_trains_with_horovods_optimizer_and_callbacks(node: MakeNode) -> None:
    told = await run_all([node(2), node(3)], [str(SCRIPTS / "keras_callbacks.py")])

    assert len({line.partition(": ")[2] for line in told}) == 1, told
    assert all(line.endswith("falls True") for line in told)


@pytest.mark.parametrize("before", [{}, {"PYTHONPATH": str(TENSORFLOW_1)}], ids=["compat", "framework_version 1.x"])
async def test_version_1_trains_with_the_distributed_optimizer_and_the_broadcast_hook(node: MakeNode, before: dict[str, str]) -> None:
    told = await run_all([node(2), node(3)], [str(SCRIPTS / "tf1_session.py")], before)

    assert told == [f"rank {rank} of 4: weight 3.00" for rank in range(4)]


async def test_a_rank_that_never_comes_is_named_to_those_that_wait(node: MakeNode, tmp_path: Path) -> None:
    waits = node(2)
    waits.ring = type(waits.ring)("agent-2", patience_seconds=1.0)
    absent = tmp_path / "absent.py"
    absent.write_text("import os, runpy\nif os.environ['HOROVOD_RANK'] == '0':\n    import horovod.tensorflow as hvd\n    hvd.init()\n")

    with pytest.raises(AssertionError) as caught:
        await run_all([waits], [str(absent)])

    assert "within 1 s of the first: rank 1 on agent-2 did not" in str(caught.value)
    assert "Horovod initialization failed" in str(caught.value)


async def test_on_tensorflow_2_21_the_same_scripts_give_the_same(node: MakeNode, python_221: Path) -> None:
    reduced = await run_all([node(2, python=python_221), node(3, python=python_221)], [str(SCRIPTS / "allreduce.py")])
    taped = await run_all([node(4, python=python_221), node(5, python=python_221)], [str(SCRIPTS / "gradient_tape.py")])
    by_keras = await run_all([node(6, python=python_221), node(7, python=python_221)], [str(SCRIPTS / "keras_callbacks.py")])

    assert all("sum 6, gathered [0, 1, 2, 3], broadcast 7" in line for line in reduced)
    assert taped == [f"rank {rank} of 4: weight 3.00, bias 1.00" for rank in range(4)]
    assert len({line.partition(": ")[2] for line in by_keras}) == 1, by_keras
    assert all(line.endswith("falls True") for line in by_keras)
