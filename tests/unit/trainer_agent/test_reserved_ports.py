from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.trainer_agent.adapters.reserved_ports import Ports, candidates
from services.trainer_agent.ports import PreparationFailed


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def test_a_reserved_port_is_nobody_elses_until_it_is_opened(tmp_path: Path) -> None:
    reserved = Ports("127.0.0.1", tmp_path).reserve(3)

    taken = [is_free(port) for port in reserved.numbers]
    reserved.open(reserved.numbers[0])

    assert (taken, len(set(reserved.numbers))) == ([False] * 3, 3)
    assert [is_free(port) for port in reserved.numbers] == [True, False, False]
    reserved.close()
    assert is_free(reserved.numbers[2])


def test_a_port_is_reserved_on_all_addresses_of_the_machine(tmp_path: Path) -> None:
    reserved = Ports("127.0.0.2", tmp_path).reserve(1)

    assert [is_free(reserved.numbers[0], address) for address in ("127.0.0.1", "127.0.0.2", "0.0.0.0")] == [False] * 3
    reserved.close()


def test_an_opened_port_is_not_reserved_again_before_its_holder_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer_agent.adapters.reserved_ports.candidates", lambda low, high: (61900, 61902))
    first = Ports("127.0.0.1", tmp_path).reserve(1)
    first.open(*first.numbers)

    others = Ports("127.0.0.1", tmp_path).reserve(1)
    with pytest.raises(PreparationFailed, match=r"no 1 of its ports from 61900 to 61901 are free"):
        Ports("127.0.0.1", tmp_path).reserve(1)
    first.close()
    again = Ports("127.0.0.1", tmp_path).reserve(1)

    assert again.numbers == first.numbers != others.numbers
    for it in (others, again):
        it.close()


def test_what_was_taken_on_the_way_to_too_few_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer_agent.adapters.reserved_ports.candidates", lambda low, high: (61903, 61905))

    with pytest.raises(PreparationFailed):
        Ports("127.0.0.1", tmp_path).reserve(3)

    both = Ports("127.0.0.1", tmp_path).reserve(2)
    assert sorted(both.numbers) == [61903, 61904]
    both.close()


def test_an_address_of_another_machine_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreparationFailed, match=r"cannot reserve ports on 192\.0\.2\.1: .*agent\.address"):
        Ports("192.0.2.1", tmp_path).reserve(1)


@pytest.mark.parametrize(
    ("kernels", "ours"),
    [((32768, 60999), (61000, 65536)), ((32768, 65000), (20000, 32768)), ((20500, 65535), (20500, 65536)), ((1024, 65535), (20000, 65536))],
)
def test_ports_lie_outside_the_kernels_own_range_where_there_is_room(kernels: tuple[int, int], ours: tuple[int, int]) -> None:
    assert candidates(*kernels) == ours
