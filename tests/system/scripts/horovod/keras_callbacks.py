"""Keras with Horovod's optimizer and callbacks: weights begin equal, the rate warms up, metrics are averages over all ranks."""

import horovod.tensorflow.keras as hvd
import numpy as np
import tensorflow as tf

hvd.init()
tf.keras.utils.set_random_seed(hvd.rank())
x = np.random.default_rng(hvd.rank()).normal(size=(128, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(1)])
model.compile(optimizer=hvd.DistributedOptimizer(tf.keras.optimizers.SGD(0.02 * hvd.size())), loss="mse")
told = model.fit(
    x,
    y,
    batch_size=32,
    epochs=5,
    verbose=0,
    callbacks=[
        hvd.callbacks.BroadcastGlobalVariablesCallback(0),
        hvd.callbacks.MetricAverageCallback(),
        hvd.callbacks.LearningRateWarmupCallback(initial_lr=0.02 * hvd.size(), warmup_epochs=2, verbose=0),
    ],
)
weights = " ".join(f"{float(it):.3f}" for it in np.concatenate([it.ravel() for it in model.get_weights()]))
losses = told.history["loss"]
print(f"rank {hvd.rank()} of {hvd.size()}: weights {weights}, loss {losses[-1]:.4f}, falls {losses[-1] < losses[0]}", flush=True)
