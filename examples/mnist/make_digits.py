"""Handwritten digits in MNIST's format and under its names, from scikit-learn's copy: 28x28, IDX, gzipped.

python examples/mnist/make_digits.py FOLDER
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
_HELD_BACK = 360
_SEED = 7


def upscaled(images: np.ndarray) -> np.ndarray:
    """8x8 of 0-16 to 28x28 of 0-255: each pixel thrice, and a border of two."""
    bigger = images.repeat(3, axis=1).repeat(3, axis=2)
    return np.pad(np.rint(bigger * (255 / 16)), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """IDX of unsigned bytes: magic, sizes (big endian), data."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def make(folder: Path) -> list[Path]:
    """The four files; the same bytes every time, so that caches and digests hold."""
    digits = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(digits.target))
    images, labels = upscaled(digits.images)[order], digits.target[order]
    parts = (images[_HELD_BACK:], labels[_HELD_BACK:], images[:_HELD_BACK], labels[:_HELD_BACK])
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(NAMES, parts, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(part), mtime=0))
    return [folder / name for name in NAMES]


if __name__ == "__main__":
    for path in make(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data")):
        print(path)
