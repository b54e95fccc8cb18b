"""Which files a model may not hold: archives, pickles, HDF5, Keras archives with code in them. Nothing is unpacked or run to find out.

Looked at by name and by the first bytes, so that another name does not help. Standard library only.
"""

from __future__ import annotations

import bz2
import lzma
import pickletools
import zlib
from collections.abc import Callable
from pathlib import PurePosixPath

HEAD_BYTES = 64 << 10
"""So much of a file's beginning tells what it is."""
_INFLATED = 1024
_LZMA_MEMORY = 64 << 20
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".7z", ".rar", ".whl", ".egg", ".jar", ".npz")
_PACKED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_PICKLES = (".pkl", ".pickle", ".pck", ".pcl", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth")
_HDF5 = (".h5", ".hdf5", ".he5")
_ZIPPED = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_OTHER_ARCHIVES = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07")
_LONGEST = 8192
"""Of a pickle's instructions, so that what is left of the head may be a part of one."""

_ARCHIVE = "is an archive, and what it holds could not be looked at; unpack it and register the folder"
_PICKLE = "is a pickle, which runs whatever code its maker chose when it is loaded; export the model, as a SavedModel for example"
_HDF = "is HDF5, which may hold code and read other files when Keras loads it; export the model by model.export(folder)"


def by_name(path: str) -> str:
    """Why a model may not hold a file of this name, and what to do; "" where its name says nothing."""
    name = PurePosixPath(path).name.lower()
    if name.endswith(_ARCHIVES + _PACKED):
        return _ARCHIVE
    if name.endswith(_PICKLES):
        return _PICKLE
    return _HDF if name.endswith(_HDF5) else ""


def by_head(path: str, head: bytes, size: int) -> str:
    """As by_name, by the first HEAD_BYTES of a file of `size` bytes too. A Keras archive is looked into by `_keras_archive`."""
    if why := by_name(path):
        return why
    if is_keras(path):
        return "" if head.startswith(_ZIPPED) else "is no Keras archive, whatever its name says"
    return _packed(head) or _plain(head, size) or _inflated(head)


def is_keras(path: str) -> bool:
    """Whether it is to be an archive of Keras 3."""
    return path.lower().endswith(".keras")


def may_be_keras_config(path: str, head: bytes) -> bool:
    """Whether it may be a model's architecture as Keras writes it: then all of it is to be looked at."""
    return path.lower().endswith(".json") and b'"class_name"' in head


def _packed(head: bytes) -> str:
    if head.startswith(_ZIPPED) or head.startswith(_OTHER_ARCHIVES) or head[257:262] == b"ustar":
        return _ARCHIVE
    return ""


def _plain(head: bytes, size: int) -> str:
    # HDF5 may begin behind a block of the user's, of 512 bytes or twice as many, and so on.
    starts = [0, *(512 << power for power in range(8))]
    if any(head[start : start + 8] == b"\x89HDF\r\n\x1a\n" for start in starts):
        return _HDF
    if head.startswith(b"\x93NUMPY") and b"O'" in head[:512]:
        return _PICKLE
    return _PICKLE if _is_pickle(head, size) else ""


def _inflated(head: bytes) -> str:
    """Of a compressed file what it begins with."""
    inflate: Callable[[bytes], bytes] | None = None
    if head.startswith(b"\x1f\x8b"):
        inflate = lambda data: zlib.decompressobj(wbits=31).decompress(data, _INFLATED)  # noqa: E731
    elif head.startswith(b"BZh"):
        inflate = lambda data: bz2.BZ2Decompressor().decompress(data, _INFLATED)  # noqa: E731
    elif head.startswith(b"\xfd7zXZ\x00"):
        inflate = lambda data: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(data, _INFLATED)  # noqa: E731
    if inflate is None:
        return ""
    try:
        inner = inflate(head)
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        return ""
    # One that fills the room goes on.
    return _packed(inner) or _plain(inner, len(inner) + (len(inner) == _INFLATED))


def _is_pickle(head: bytes, size: int) -> bool:
    """Read as a list of instructions; none is carried out."""
    told = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    names: list[str] = []
    at, end = 0, -1
    try:
        for opcode, _, position in pickletools.genops(head):
            names.append(opcode.name)
            at = int(position or 0)
            if opcode.name == "STOP":
                end = at + 1
    except Exception:
        # What is no pickle fails in many ways, and one that is longer than what was read fails where that ends.
        pass
    if told:
        return end >= 0 or len(names) >= 4
    # Older ones have no mark at the beginning, and short texts may look like one: it must be one to its end, or as far as was read.
    made_so = {"MARK"} <= set(names) and bool({"PUT", "BINPUT", "LONG_BINPUT"} & set(names))
    goes_on = end < 0 and size > len(head) and made_so and at > len(head) - min(_LONGEST, len(head) // 2)
    return (end == size and len(names) >= 3) or goes_on
