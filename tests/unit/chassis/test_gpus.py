"""GPUs as a setting tells of them, and as CUDA_VISIBLE_DEVICES leaves them."""

from __future__ import annotations

import json

import pytest

from services.chassis.gpus import visible_gpus
from services.chassis.machine import gpus, this_machine

TWO_KINDS = "2xNVIDIA H100, NVIDIA T4"


def test_an_inventory_counts_devices_by_name() -> None:
    found = visible_gpus(TWO_KINDS)

    assert [(gpu.index, gpu.name) for gpu in found] == [(0, "NVIDIA H100"), (1, "NVIDIA H100"), (2, "NVIDIA T4")]
    assert len({gpu.uuid for gpu in found}) == 3
    assert all(gpu.memory_bytes for gpu in found)


def test_an_inventory_may_say_all_there_is_to_say() -> None:
    (found,) = visible_gpus(json.dumps([{"name": "A", "uuid": "GPU-7", "memory_bytes": 5}]))

    assert (found.index, found.name, found.uuid, found.memory_bytes) == (0, "A", "GPU-7", 5)


@pytest.mark.parametrize("text", [",", "[1]", "[{]", '[{"colour": 1}]', '{"name": "x"}x,', "999xA", "[{}" + ",{}" * 300 + "]"])
def test_an_inventory_that_is_none_says_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match=r"agent\.fake_gpus"):
        visible_gpus(text)


@pytest.mark.parametrize(
    ("visible", "left"),
    [
        ("2,0", [2, 0]),
        ("1", [1]),
        ("GPU-fake-1", [1]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("0,9,1", [0]),
        ("0,0", [0]),
        ("GPU-fake", []),
        ("all", []),
        (None, [0, 1, 2]),
    ],
)
def test_devices_that_cuda_would_not_show_are_not_there(visible: str | None, left: list[int]) -> None:
    assert [gpu.index for gpu in visible_gpus(TWO_KINDS, visible)] == left


def test_a_machine_without_a_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)

    assert list(gpus()) == []
    assert this_machine().gpus == 0


def test_this_machine_counts_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")

    assert this_machine(TWO_KINDS).gpus == 2
