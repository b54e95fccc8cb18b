"""TensorFlow 1's interface for scripts of its time, on the real TensorFlow 2.15."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.mnist import make_digits
from services.chassis.environments import acquire, definition
from services.trainer_agent.script_environment import TENSORFLOW_1
from trainyard._environment_cache import default_cache

pytestmark = [pytest.mark.component, pytest.mark.timeout(600)]
Script = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """Runs code as the agent would run a script with framework_version 1.x."""
    made, _ = acquire(definition("tensorflow", "1.13", []), default_cache(), print)
    folder = tmp_path_factory.mktemp("code")
    environment = {**os.environ, "PYTHONPATH": str(TENSORFLOW_1), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(code: str) -> subprocess.CompletedProcess[str]:
        (folder / "script.py").write_text(code)
        return subprocess.run([made.python, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


def test_every_way_to_import_version_1_leads_to_the_same_modules(script: Script) -> None:
    result = script(
        """
import tensorflow as tf
import tensorflow.keras
import tensorflow.saved_model.signature_constants
import tensorflow.compat.v1 as v1
import tensorflow.compat.v2 as v2
from tensorflow import flags, keras
from tensorflow.keras.layers import Dense
from tensorflow.keras import backend
from tensorflow.train import Saver
from tensorflow.python.framework import ops
from tensorflow.contrib import rnn
import tensorflow.contrib.layers as layers
from tensorflow.examples.tutorials.mnist import input_data

assert not tf.executing_eagerly()
assert tf.Session is v1.Session and tf.placeholder is v1.placeholder and tf.layers.dense is v1.layers.dense
assert keras is tf.keras is tensorflow.keras and tf.keras.layers.Dense is Dense and tf.keras.backend is backend
assert Saver is tf.train.Saver and flags is tf.flags and ops.get_default_graph is tf.get_default_graph
assert v2.io.gfile is not tf.gfile and v2.__name__ == "tensorflow.compat.v2"
assert layers.xavier_initializer is tf.initializers.glorot_uniform and rnn.BasicLSTMCell is tf.nn.rnn_cell.BasicLSTMCell
assert tf.estimator.Estimator and tf.app.run and tf.logging.set_verbosity and tf.train.Server and tf.gfile.Exists
assert tf.__version__.startswith("2.15") and "Session" in dir(tf)
"""
    )

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_flags_app_run_and_an_estimator_run_as_they_did(script: Script) -> None:
    result = script(
        """
import numpy as np
import tensorflow as tf
tf.app.flags.DEFINE_integer("steps", 3, "how many")
FLAGS = tf.app.flags.FLAGS

def model(features, labels, mode):
    logits = tf.layers.dense(features["x"], 2)
    loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    train = tf.train.AdamOptimizer(0.1).minimize(loss, tf.train.get_global_step())
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=train)

def main(_):
    x, y = np.eye(2).astype(np.float32), np.arange(2).astype(np.int)
    read = tf.estimator.inputs.numpy_input_fn({"x": x}, y, batch_size=2, num_epochs=None, shuffle=False)
    tf.estimator.Estimator(model).train(read, steps=FLAGS.steps)
    print("trained", FLAGS.steps)

if __name__ == "__main__":
    tf.app.run()
"""
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout == "trained 3\n"


def test_what_went_away_says_what_took_its_place(script: Script) -> None:
    result = script(
        """
import tensorflow as tf
for line in ("tf.contrib.slim", "import tensorflow.contrib.slim as slim", "from tensorflow.contrib import learn",
             "tf.contrib.layers.fully_connected", "import tensorflow.contrib.anything.below", "import tensorflow.nothing", "tf.nothing"):
    try:
        exec(line)
    except Exception as error:
        print(type(error).__name__, error)
"""
    )

    told = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert "tf_slim in pip_packages" in told[0]
    assert told[0] == told[1]
    assert "input_data" in told[2]
    assert "tf.layers, tf.nn and tf.keras" in told[3]
    assert "tf.contrib.anything went away" in told[4]
    assert told[5] == "ModuleNotFoundError No module named 'tensorflow.nothing'"
    assert told[6].startswith("AttributeError")


def test_processes_that_a_script_starts_have_it_too(script: Script) -> None:
    result = script(
        """
import multiprocessing, subprocess, sys

def look(answers):
    import tensorflow as tf
    answers.put(tf.Session.__name__)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=look, args=(answers,))
    child.start()
    print(answers.get())
    child.join()
    print(subprocess.run([sys.executable, "-c", "import tensorflow; print(tensorflow.Session.__name__)"], stdout=subprocess.PIPE).stdout.decode())
"""
    )

    assert result.stdout.split() == ["Session", "Session"], result.stderr


def test_the_tutorials_mnist_gives_batches_of_the_files_in_its_folder(script: Script, tmp_path: Path) -> None:
    make_digits.make(tmp_path / "mnist")
    (tmp_path / "other").mkdir()
    for name in make_digits.NAMES:
        (tmp_path / "other" / name).write_bytes(gzip.compress(b"no digits"))

    result = script(
        f"""
from tensorflow.examples.tutorials.mnist import input_data
mnist = input_data.read_data_sets({str(tmp_path / "mnist")!r}, one_hot=True, validation_size=37, seed=1)
images, labels = mnist.train.next_batch(1390)
more, _ = mnist.train.next_batch(20)
print(mnist.train.num_examples, mnist.validation.num_examples, mnist.test.num_examples, images.shape, labels.shape, more.shape)
print(mnist.train.epochs_completed, float(images.max()), labels.sum() == len(labels))
try:
    input_data.read_data_sets({str(tmp_path / "other")!r})
except ValueError as error:
    print(error)
"""
    )

    lines = result.stdout.splitlines()
    assert lines[0] == "1400 37 360 (1390, 784) (1390, 10) (20, 784)", result.stderr
    assert lines[1] == "1 1.0 True"
    assert "is not the MNIST file" in lines[2]
