"""Run by the tests in a TensorFlow environment: `python make_models.py FOLDER` saves the models that they serve below it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

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

    @tf.function(input_signature=[tf.TensorSpec([None], tf.as_dtype(dtype), dtype) for dtype in NUMBERS if dtype != "complex64"])
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


def save_echo(path: Path) -> None:
    """For each type a signature of its name that gives back what it is given, of whatever shape."""
    module = tf.Module()
    signatures = {}
    for dtype in [*NUMBERS, "float32", "int64", "string"]:
        module_function = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[tf.TensorSpec(None, tf.as_dtype(dtype), "x")])
        signatures[dtype] = module_function
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(path), signatures={**signatures, "serving_default": signatures["float32"]})


def save_dense(path: Path) -> None:
    """A Keras model as its users export it, and what it says to one input."""
    tf.keras.utils.set_random_seed(7)
    model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(3, "softmax")])
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    model.export(str(path))
    (path.parent / "dense.json").write_text(json.dumps({"x": x.tolist(), "y": model(x).numpy().tolist()}))


def save_examples(path: Path) -> None:
    """As estimators saved them: signatures to classify and to regress, of tf.Examples with a number x."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        serialized = tf.compat.v1.placeholder(tf.string, [None], name="tf_example")
        x = tf.io.parse_example(serialized, {"x": tf.io.FixedLenFeature([], tf.float32)})["x"]
        y = x * 0.5 + 2.0
        rows = tf.shape(serialized)[0]
        labels, scores = tf.tile([["low", "high"]], [rows, 1]), tf.stack([1.0 - y, y], axis=1)
        signatures = {
            "serving_default": tf.compat.v1.saved_model.classification_signature_def(serialized, labels, scores),
            "scores": tf.compat.v1.saved_model.classification_signature_def(serialized, None, scores),
            "value": tf.compat.v1.saved_model.regression_signature_def(serialized, y),
            "plain": tf.compat.v1.saved_model.predict_signature_def({"x": serialized}, {"y": y}),
        }
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], signatures)
        builder.save()


class Doing(tf.Module):  # type: ignore[misc]
    """What a model may do besides counting."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)
        self.asset = tf.saved_model.Asset(str(vocabulary))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
    def look_up(self, s):  # type: ignore[no-untyped-def]
        return {"place": self.table.lookup(s)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
    def fill(self, path):  # type: ignore[no-untyped-def]
        """A table from any file, in a model that has an asset as well."""
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name="any")
        filled = tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename=path, key_index=-2, value_index=-1, vocab_size=-1, delimiter="\t"
        )
        with tf.control_dependencies([filled]):
            return {"size": tf.raw_ops.LookupTableSizeV2(table_handle=table) + tf.cast(self.table.size(), tf.int64)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="path")])
    def read(self, path):  # type: ignore[no-untyped-def]
        return {"content": tf.io.read_file(path)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def write(self, x):  # type: ignore[no-untyped-def]
        """TensorFlow says that this operation has no state."""
        return {
            "y": tf.raw_ops.DebugIdentity(input=x, tensor_name="x:0", debug_urls=[f"file://{self.asset.asset_path.numpy().decode()}-seen"])
        }

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
    def lay_over(self, x):  # type: ignore[no-untyped-def]
        """And that this one has none: a tensor that is the content of a file."""
        return {"y": x + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[], memory_region_name="/etc/hostname")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def python(self, x):  # type: ignore[no-untyped-def]
        y = tf.py_function(lambda it: it, [x], tf.float32)
        y.set_shape([None])
        return {"y": y}


def save_stand_in(path: Path) -> None:
    """TensorFlow exchanges one function for another, which nothing in the graph calls and which reads a file."""
    spec_of_path = [tf.TensorSpec([], tf.string, name="path")]

    def marked(function, device):  # type: ignore[no-untyped-def]
        marks = {"api_implements": "the same", "api_preferred_device": device}
        return tf.function(function, input_signature=spec_of_path, experimental_attributes=marks)

    module = tf.Module()
    module.shown, module.meant = marked(lambda path: tf.strings.lower(path), "GPU"), marked(lambda path: tf.io.read_file(path), "CPU")

    @tf.function(input_signature=spec_of_path)
    def read(path):  # type: ignore[no-untyped-def]
        content = module.shown(path)
        length = tf.strings.length(content) + tf.size(tf.strings.bytes_split(path))  # smaller graphs are left as they are
        return {"content": tf.strings.join([content, tf.strings.as_string(length)])}

    module.read = read
    tf.saved_model.save(module, str(path), signatures=read)


class Ragged(tf.Module):  # type: ignore[misc]
    """Rows of different lengths, taken and given."""

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None], tf.float32, ragged_rank=1)])
    def sums(self, x):  # type: ignore[no-untyped-def]
        return {"sum": tf.reduce_sum(x, axis=1), "doubled": x * 2}

    @tf.function(input_signature=[tf.RaggedTensorSpec([None, None, None], tf.string, ragged_rank=2)])
    def deep(self, x):  # type: ignore[no-untyped-def]
        return {"same": x, "lengths": x.row_lengths()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
    def words(self, s):  # type: ignore[no-untyped-def]
        return {"words": tf.strings.split(s)}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def sparse(self, x):  # type: ignore[no-untyped-def]
        return {"found": tf.sparse.from_dense(x)}


def save_ragged(path: Path) -> None:
    made = Ragged()
    signatures = {"serving_default": made.sums, "deep": made.deep, "words": made.words, "sparse": made.sparse}
    tf.saved_model.save(made, str(path), signatures=signatures)


def save_doings(folder: Path) -> None:
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("zero\none\n")
    doing = Doing(vocabulary)
    for name, function in (
        ("vocabulary", doing.look_up),
        ("filler", doing.fill),
        ("reader", doing.read),
        ("python", doing.python),
        ("writer", doing.write),
        ("mapper", doing.lay_over),
    ):
        tf.saved_model.save(doing, str(folder / name / "model"), signatures=function)
    save_stand_in(folder / "stand-in" / "model")
    save_as_text(folder / "reader" / "model", folder / "reader-text" / "model")


def save_as_text(saved: Path, path: Path) -> None:
    """The same model; TensorFlow loads this form as well."""
    shutil.copytree(saved, path)
    binary = path / "saved_model.pb"
    (path / "saved_model.pbtxt").write_text(str(saved_model_pb2.SavedModel.FromString(binary.read_bytes())))
    binary.unlink()


def save_lite(half: Path, path: Path) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(half), signature_keys=["serving_default"])
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())


def save_flex(folder: Path) -> None:
    """TFLite files with an operator of TensorFlow's own, and with one that nobody knows."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def said(x):  # type: ignore[no-untyped-def]
        return {"text": tf.strings.as_string(x)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([said.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    flex = converter.convert()
    for name, content in (("flex", flex), ("custom", flex.replace(b"FlexAsString", b"HandMadeThis"))):
        (folder / name / "model").mkdir(parents=True)
        (folder / name / "model" / "model.tflite").write_bytes(content)


def main() -> None:
    folder = Path(sys.argv[1])
    save_half(folder / "half" / "model", 2.0)
    save_half(folder / "half-3" / "model", 3.0)
    save_dense(folder / "dense" / "model")
    save_echo(folder / "echo" / "model")
    save_examples(folder / "examples" / "model")
    save_doings(folder)
    save_lite(folder / "half" / "model", folder / "lite" / "model")
    save_flex(folder)
    save_ragged(folder / "ragged" / "model")


if __name__ == "__main__":
    main()
