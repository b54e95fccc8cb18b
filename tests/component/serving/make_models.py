"""Run by the tests in a TensorFlow environment: `python make_models.py FOLDER` saves the models that they serve below it."""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

NUMBERS = ["float64", "int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "half", "bfloat16"]


def spec(dtype: str, shape: list[int | None]) -> tf.TensorSpec:
    return tf.TensorSpec(shape, tf.as_dtype(dtype))


class Half(tf.Module):  # type: ignore[misc]
    """y = x / 2 + offset, and signatures for everything else that a request may be about."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = tf.Variable(offset)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x):  # type: ignore[no-untyped-def]
        return {"y": x * 0.5 + self.offset}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s"), tf.TensorSpec([None], tf.int64, name="n")])
    def tag(self, s, n):  # type: ignore[no-untyped-def]
        return {"text": s + tf.strings.as_string(n), "raw_bytes": s, "twice": n * 2}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def total(self, x):  # type: ignore[no-untyped-def]
        return {"sum": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def positive(self, x):  # type: ignore[no-untyped-def]
        with tf.control_dependencies([tf.debugging.assert_positive(x, "only positive numbers")]):
            return {"y": tf.identity(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="n")])
    def count(self, n):  # type: ignore[no-untyped-def]
        return {"n": tf.while_loop(lambda i: i < n, lambda i: [i + 1], [tf.constant(0, tf.int64)])[0]}

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def pairs(self, x):  # type: ignore[no-untyped-def]
        return {"y": tf.linalg.matvec(x, tf.constant([1.0, 10.0]))}

    @tf.function(input_signature=[spec(dtype, [None]) for dtype in NUMBERS])
    def kinds(self, *tensors):  # type: ignore[no-untyped-def]
        return {f"out_{dtype}": tf.identity(tensor) for dtype, tensor in zip(NUMBERS, tensors, strict=True)}

    @tf.function(input_signature=[spec(dtype, [None]) for dtype in NUMBERS if dtype != "complex64"])
    def real_kinds(self, *tensors):  # type: ignore[no-untyped-def]
        return {f"{tensor.dtype.name}_out": tf.identity(tensor) for tensor in tensors}


def save_half(path: Path, offset: float) -> None:
    made = Half(offset)
    signatures = {
        "serving_default": made.half,
        "tag": made.tag,
        "total": made.total,
        "positive": made.positive,
        "count": made.count,
        "pairs": made.pairs,
        "kinds": made.kinds,
        "real_kinds": made.real_kinds,
    }
    tf.saved_model.save(made, str(path), signatures=signatures)


def save_dense(path: Path) -> None:
    """A Keras model as its users export it, and what it says to one input."""
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(3, "softmax")])
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    model.export(str(path))
    (path.parent / "dense.json").write_text(json.dumps({"x": x.tolist(), "y": model(x).numpy().tolist()}))


def main() -> None:
    folder = Path(sys.argv[1])
    save_half(folder / "half" / "model", 2.0)
    save_half(folder / "half-3" / "model", 3.0)
    save_dense(folder / "dense" / "model")


if __name__ == "__main__":
    main()
