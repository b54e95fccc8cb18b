"""`tensorflow.examples.tutorials.mnist.input_data`: MNIST as arrays and batches. NumPy and the standard library."""

from __future__ import annotations

import collections
import gzip
import math
import os
import struct
import urllib.request
from typing import Any

import numpy

DEFAULT_SOURCE_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049

Datasets = collections.namedtuple("Datasets", ["train", "validation", "test"])


class DataSet:
    """Images [n, 784] (or [n, 28, 28, 1]) of 0..1 or of 0..255 (dtype uint8), labels [n] or one-hot [n, 10]."""

    def __init__(self, images: Any, labels: Any, dtype: Any, reshape: bool, seed: int | None) -> None:
        self._random = numpy.random.RandomState(seed)
        images = images.reshape(len(images), images.shape[1] * images.shape[2]) if reshape else images
        self.images = images if dtype in ("uint8", numpy.uint8) else images.astype(numpy.float32) / 255.0
        self.labels = labels
        self.num_examples = len(images)
        self.epochs_completed = 0
        self._at = 0

    def next_batch(self, batch_size: int, fake_data: bool = False, shuffle: bool = True) -> tuple[Any, Any]:
        """The next batch_size images and labels; shuffled anew with every epoch, and a batch may reach over its end."""
        if shuffle and self._at == 0 and self.epochs_completed == 0:
            self._shuffle()
        images, labels = [], []
        while batch_size > 0:
            taken = slice(self._at, self._at + batch_size)
            images.append(self.images[taken])
            labels.append(self.labels[taken])
            batch_size -= len(images[-1])
            self._at += len(images[-1])
            if self._at >= self.num_examples:
                self.epochs_completed += 1
                self._at = 0
                if shuffle:
                    self._shuffle()
        return numpy.concatenate(images), numpy.concatenate(labels)

    def _shuffle(self) -> None:
        order = self._random.permutation(self.num_examples)
        self.images, self.labels = self.images[order], self.labels[order]


def read_data_sets(
    train_dir: str,
    fake_data: bool = False,
    one_hot: bool = False,
    dtype: Any = "float32",
    reshape: bool = True,
    validation_size: int = 5000,
    seed: int | None = None,
    source_url: str = DEFAULT_SOURCE_URL,
) -> Any:
    """Reads the four files from train_dir, and fetches what is missing there. Raises ValueError for a file that is not MNIST's."""
    dtype = getattr(dtype, "name", dtype)
    train_images = extract_images(_file(train_dir, "train-images-idx3-ubyte.gz", source_url))
    train_labels = extract_labels(_file(train_dir, "train-labels-idx1-ubyte.gz", source_url), one_hot=one_hot)
    test_images = extract_images(_file(train_dir, "t10k-images-idx3-ubyte.gz", source_url))
    test_labels = extract_labels(_file(train_dir, "t10k-labels-idx1-ubyte.gz", source_url), one_hot=one_hot)
    if not 0 <= validation_size <= len(train_images):
        raise ValueError(f"validation_size must be from 0 to {len(train_images)}; it is {validation_size}")
    kept, rest = slice(0, validation_size), slice(validation_size, None)
    return Datasets(
        train=DataSet(train_images[rest], train_labels[rest], dtype, reshape, seed),
        validation=DataSet(train_images[kept], train_labels[kept], dtype, reshape, seed),
        test=DataSet(test_images, test_labels, dtype, reshape, seed),
    )


def extract_images(file: str) -> Any:
    """[n, rows, columns, 1] of uint8."""
    data, sizes = _idx(file, _IMAGES_MAGIC, 3)
    return data.reshape(*sizes, 1)


def extract_labels(file: str, one_hot: bool = False, num_classes: int = 10) -> Any:
    """[n] of uint8, or [n, num_classes] of float64."""
    data, _ = _idx(file, _LABELS_MAGIC, 1)
    return numpy.eye(num_classes)[data] if one_hot else data


def _idx(file: str, magic: int, dimensions: int) -> tuple[Any, list[int]]:
    with gzip.open(file, "rb") as stream:
        header = stream.read(4 * (dimensions + 1))
        data = numpy.frombuffer(stream.read(), numpy.uint8)
    found, *sizes = struct.unpack(f">{dimensions + 1}I", header) if len(header) == 4 * (dimensions + 1) else (0,)
    if found != magic or len(data) != math.prod(sizes):
        raise ValueError(f"{file} is not the MNIST file that it is named for")
    return data, sizes


def _file(folder: str, name: str, source_url: str) -> str:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        urllib.request.urlretrieve(source_url + name, path + ".part")  # noqa: S310 - the address is the script's own
        os.replace(path + ".part", path)
    return path
