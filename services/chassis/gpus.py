"""The GPUs of this machine as NVIDIA's management library tells of them, or as a setting says for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import pynvml
import structlog

from trainyard.cluster.v1.resources_pb2 import Gpu

log = structlog.get_logger()
_COUNTED = re.compile(r"(?:(\d{1,3})x)?\s*(\S.*)\Z")
_MOST = 256
_FAKE_BYTES = 16 << 30


def visible_gpus(fake: str = "", visible: str | None = None) -> Sequence[Gpu]:
    """`fake`: "2xNVIDIA H100,NVIDIA T4", or JSON: [{"name": ..., "uuid": ..., "memory_bytes": ...}]; "" asks the driver.

    `visible`: CUDA_VISIBLE_DEVICES; None = all. Raises ValueError for an inventory that is none.
    """
    found = _fakes(fake) if fake.strip() else _by_driver()
    return found if visible is None else list(_chosen(found, visible))


def _by_driver() -> Sequence[Gpu]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        # No NVIDIA driver, or none that answers: a machine without GPUs is nothing to complain of.
        return []
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        log.warning("the driver does not tell of its GPUs: they are not used", reason=str(error))
        return []
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
    )


def _chosen(found: Sequence[Gpu], visible: str) -> Iterator[Gpu]:
    """As CUDA reads the variable: indices or the beginnings of UUIDs; the first that names no device, or one again, ends the list."""
    taken: set[int] = set()
    for word in visible.split(","):
        gpu = _named(found, word.strip())
        if gpu is None or gpu.index in taken:
            return
        taken.add(gpu.index)
        yield gpu


def _named(found: Sequence[Gpu], word: str) -> Gpu | None:
    if word.isascii() and word.isdigit():
        return next((gpu for gpu in found if gpu.index == int(word)), None)
    alike = [gpu for gpu in found if word and gpu.uuid.startswith(word)]
    return alike[0] if len(alike) == 1 else None


def _fakes(text: str) -> Sequence[Gpu]:
    given = _from_json(text) if text.lstrip().startswith("[") else list(_counted(text))
    if len(given) > _MOST:
        raise ValueError(f"agent.fake_gpus names {len(given)} GPUs; a node has at most {_MOST}")
    for index, gpu in enumerate(given):
        gpu.index = index
        gpu.uuid = gpu.uuid or f"GPU-fake-{index}"
    return given


def _counted(text: str) -> Iterator[Gpu]:
    for part in text.split(","):
        found = _COUNTED.match(part.strip())
        if found is None:
            raise ValueError(f"agent.fake_gpus is like '2xNVIDIA H100,NVIDIA T4' or a JSON list, not {text[:200]!r}")
        for _ in range(int(found[1] or 1)):
            yield Gpu(name=found[2], memory_bytes=_FAKE_BYTES)


def _from_json(text: str) -> list[Gpu]:
    try:
        return [Gpu(**{"memory_bytes": _FAKE_BYTES, **item}) for item in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"agent.fake_gpus is no list of GPUs (name, uuid, memory_bytes): {error}") from error
