"""faust's measured faults, against the guards: records skipped when a worker starts anew or joins, and workers that stall."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.chassis.under_fault import REPO, CountingService, Load, assert_each_took_effect_once, eventually

MOMENTS = ["at once", "caught up", "started", "at work", "at work"]
pytestmark = [pytest.mark.component, pytest.mark.faults, pytest.mark.timeout(100)]


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("TRAINYARD_TEST_SEED") or random.randrange(1 << 32))
    print(f"TRAINYARD_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def service(tmp_path: Path, kafka_bootstrap: str) -> Iterator[CountingService]:
    service = CountingService(tmp_path, kafka_bootstrap)
    yield service
    service.close()


def test_a_worker_that_is_killed_again_and_again_loses_and_doubles_nothing(
    service: CountingService, kafka_bootstrap: str, dice: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load(kafka_bootstrap, service.topic).start()
    service.supervised()

    for _ in range(6):
        _reach(dice.choice(MOMENTS), service, dice)
        service.kill()
    load.stop()

    assert_each_took_effect_once(load, service, kafka_bootstrap)
    with capsys.disabled():
        print(f"\n  killed 6 times under {len(load.sent)} events: {service.told()}")


def test_workers_that_join_and_leave_lose_and_double_nothing(
    service: CountingService, kafka_bootstrap: str, dice: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load(kafka_bootstrap, service.topic).start()
    service.supervised()
    eventually(lambda: len(service.effects()) > 10, "the first worker works")

    for _ in range(4):
        second = _joins(service, kafka_bootstrap)
        before = len(service.effects())
        eventually(lambda before=before: len(service.effects()) >= before + 100, f"the first goes on ({service.told()})")  # type: ignore[misc]
        if dice.random() < 0.5:
            second.terminate()
        else:
            second.kill()
        second.wait(30)
    load.stop()

    assert_each_took_effect_once(load, service, kafka_bootstrap)
    with capsys.disabled():
        print(f"\n  joined 4 times under {len(load.sent)} events: {service.told()}")


def _reach(moment: str, service: CountingService, dice: random.Random) -> None:
    """In the life of the process that has just been started."""
    mark = len(service.log())
    if moment == "at work":
        _reach("started", service, dice)
        wanted = len(service.effects()) + dice.randrange(1, 200)
        eventually(lambda: len(service.effects()) >= wanted, f"{wanted} effects ({service.told()})")
    elif moment != "at once":
        eventually(lambda: moment in service.log()[mark:], f"{moment} ({service.told()})")


def _joins(service: CountingService, bootstrap: str) -> subprocess.Popen[str]:
    """A second worker of the same app; returns when it has partitions."""
    command = [sys.executable, "-m", "tests.component.chassis.joining_worker", bootstrap, f"trainyard-{service.name}", service.topic]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])}
    process = subprocess.Popen(command, env=environment, cwd=service.home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process
