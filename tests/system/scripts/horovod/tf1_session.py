"""Version 1's way: DistributedOptimizer, the broadcast hook and a monitored session."""

import horovod.tensorflow as hvd
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
hvd.init()
numbers = np.random.default_rng(hvd.rank())
x = tf.placeholder(tf.float32, [None, 1])
y = tf.placeholder(tf.float32, [None, 1])
weight = tf.get_variable("weight", [1, 1], initializer=tf.constant_initializer(float(hvd.rank())))
loss = tf.reduce_mean(tf.square(tf.matmul(x, weight) - y))
step = tf.train.get_or_create_global_step()
train = hvd.DistributedOptimizer(tf.train.GradientDescentOptimizer(0.1)).minimize(loss, global_step=step)
hooks = [hvd.BroadcastGlobalVariablesHook(0), tf.train.StopAtStepHook(last_step=40)]
with tf.train.MonitoredTrainingSession(hooks=hooks, checkpoint_dir="outputs" if hvd.rank() == 0 else None) as session:
    while not session.should_stop():
        points = numbers.normal(size=(32, 1))
        _, found = session.run([train, weight], {x: points, y: 3 * points})
print(f"rank {hvd.rank()} of {hvd.size()}: weight {float(found[0, 0]):.2f}", flush=True)
