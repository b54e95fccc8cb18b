"""A line fitted by gradient tape: each rank sees its own part of the points, all end with the same weights."""

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

hvd.init()
numbers = np.random.default_rng(hvd.rank())
x = numbers.normal(size=(64, 1)).astype("float32")
y = 3 * x + 1
model = tf.keras.Sequential([tf.keras.layers.Input((1,)), tf.keras.layers.Dense(1)])
optimizer = tf.keras.optimizers.SGD(0.2)


@tf.function
def step(first: bool) -> tf.Tensor:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    tape = hvd.DistributedGradientTape(tape)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    if first:
        hvd.broadcast_variables(model.variables, root_rank=0)
    return loss


for number in range(60):
    step(number == 0)
weights = [float(it.numpy().ravel()[0]) for it in model.trainable_variables]
print(f"rank {hvd.rank()} of {hvd.size()}: weight {weights[0]:.2f}, bias {weights[1]:.2f}", flush=True)
