"""JSON as Python reads and writes it, by a quicker library where the environment has one: most of a request with many numbers is its JSON.

What the quick one refuses is read by Python's own, which takes more (NaN and Infinity, as TensorFlow Serving does) and whose words for what
is wrong do not depend on the environment. Integers beyond 64 bits, which no tensor holds, come as floats from the quick one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]
_CODES = {np.dtype(np.float32): "f", np.dtype(np.float64): "d"}


def loads(text: bytes) -> Any:
    """Raises ValueError and RecursionError, as json.loads does."""
    if orjson is not None:
        try:
            return orjson.loads(text)
        except ValueError:
            pass
    return json.loads(text)


def dumps(value: Any) -> bytes:
    """Of what has no floats in it: what is no number has no form that all agree on."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # text that is no Unicode, or a number beyond 64 bits
            pass
    return json.dumps(value, separators=(",", ":")).encode()


def dumps_array(array: Any) -> bytes:
    """Of numbers or booleans. A float has as few digits as tell it apart from others of its type: 0.2, and not 0.20000000298023224."""
    if _is_quick(array):
        return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(to_lists(array)).encode()


def to_lists(array: Any) -> Any:
    """As `dumps_array` writes it, in Python's own objects."""
    if array.dtype.kind != "f" or array.dtype.itemsize == 8:
        return array.tolist()
    if _is_quick(array):
        return orjson.loads(dumps_array(array))
    return array.astype("U32").astype(np.float64).tolist()


def _is_quick(array: Any) -> bool:
    """The quick one knows neither scalars nor what is no number, and halves by more digits than they need."""
    kind = array.dtype.kind
    if orjson is None or not array.ndim or kind not in "fiub" or array.dtype.itemsize * (kind == "f") == 2:
        return False
    return kind != "f" or bool(np.isfinite(array).all())


def floats(leaves: Sequence[Any], dtype: Any) -> Any:
    """Numbers to a flat array of floats of 32 or 64 bits, in a third of NumPy's time. None: NumPy's own way has to tell what they are."""
    code = _CODES.get(dtype)
    if code is None:
        return None
    try:
        flat = np.frombuffer(struct.pack(f"{len(leaves)}{code}", *leaves), dtype)
    except (struct.error, OverflowError):  # no numbers, or beyond all types
        return None
    return flat if np.isfinite(flat).all() else None  # beyond this type, or infinite as it came


def nested_floats(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The same for lists of lists that have that shape if the first of each level is like all. None: NumPy's own way has to tell."""
    leaves = value
    try:
        for size in shape[1:]:
            if any(len(item) != size for item in leaves):
                return None
            leaves = leaves[0] if len(leaves) == 1 else list(chain.from_iterable(leaves))
    except TypeError:  # a number among lists
        return None
    # Whole numbers or booleans alone would be no floats to NumPy.
    if not shape or not leaves or type(leaves[0]) is not float:
        return None
    flat = floats(leaves, dtype)
    return None if flat is None else flat.reshape(shape)
