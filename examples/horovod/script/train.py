"""Fits a line to points of its own making, every rank on a part of them: Horovod with Keras, TensorFlow 2.15.

Each rank logs the loss; the platform shows rank 0's. What rank 0 saves in outputs/ is where a restarted attempt goes on.
"""

import argparse
from pathlib import Path

import horovod.tensorflow.keras as hvd
import numpy as np
import tensorflow as tf

from trainyard import Run

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--learning-rate", type=float, default=0.05)
arguments = parser.parse_args()

hvd.init()
run = Run.get_context()
print(f"rank {hvd.rank()} of {hvd.size()}, {hvd.local_rank()} on this node", flush=True)

points = np.random.default_rng(7).uniform(-1, 1, size=(4096, 1)).astype("float32")
own = points[hvd.rank() :: hvd.size()]
data = tf.data.Dataset.from_tensor_slices((own, 3 * own + 2)).shuffle(len(own), seed=1).batch(64)

model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
optimizer = tf.keras.optimizers.legacy.SGD(arguments.learning_rate * hvd.size())
model.compile(optimizer=hvd.DistributedOptimizer(optimizer), loss="mse")

weights = Path("outputs/weights.npz")
first = 0
if weights.exists():
    saved = np.load(weights)
    model.set_weights([saved["kernel"], saved["bias"]])
    first = int(saved["epoch"])
    print(f"goes on from epoch {first}", flush=True)


class Report(tf.keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        run.log("loss", float(logs["loss"]), step=epoch)
        if hvd.rank() == 0:
            kernel, bias = self.model.get_weights()
            beside = weights.with_suffix(".new.npz")
            np.savez(beside, kernel=kernel, bias=bias, epoch=epoch + 1)
            beside.replace(weights)  # a reader sees the old file or the new one, and never half of one


model.fit(
    data,
    initial_epoch=first,
    epochs=arguments.epochs,
    verbose=0,
    callbacks=[hvd.callbacks.BroadcastGlobalVariablesCallback(0), hvd.callbacks.MetricAverageCallback(), Report()],
)
kernel, bias = (float(value.ravel()[0]) for value in model.get_weights())
print(f"rank {hvd.rank()}: y = {kernel:.2f} x + {bias:.2f}", flush=True)
if hvd.rank() == 0:
    run.log("kernel", kernel)
    run.log("bias", bias)
