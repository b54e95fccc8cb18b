"""Fits a line to points of its own making: a parameter server and workers in the style of TensorFlow 1.

The variables live on the parameter servers, which wait until the platform ends them: the run is done when its workers are.
"""

import argparse
import json
import os

import numpy as np
import tensorflow.compat.v1 as tf

from trainyard import Run

tf.disable_v2_behavior()
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=400, help="of all workers together")
parser.add_argument("--learning-rate", type=float, default=0.05)
arguments = parser.parse_args()

config = json.loads(os.environ["TF_CONFIG"])
task, index = config["task"]["type"], config["task"]["index"]
cluster = tf.train.ClusterSpec(config["cluster"])
server = tf.train.Server(cluster, job_name=task, task_index=index)
print(f"{task} {index} of {config['cluster']}", flush=True)
if task == "ps":
    server.join()

run = Run.get_context()
chance = np.random.default_rng(index)
with tf.device(tf.train.replica_device_setter(worker_device=f"/job:{task}/task:{index}", cluster=cluster)):
    x = tf.placeholder(tf.float32, [None])
    kernel, bias = tf.Variable(0.0, name="kernel"), tf.Variable(0.0, name="bias")
    loss = tf.reduce_mean(tf.square(kernel * x + bias - (3 * x + 2)))
    step = tf.train.get_or_create_global_step()
    train = tf.train.GradientDescentOptimizer(arguments.learning_rate).minimize(loss, global_step=step)

# Without these filters a session waits for every other worker, and one that comes late for those that are done already: for ever.
filters = ["/job:ps", f"/job:{task}/task:{index}"]
with tf.train.MonitoredTrainingSession(
    master=server.target,
    config=tf.ConfigProto(device_filters=filters),
    is_chief=task == "chief" or ("chief" not in config["cluster"] and index == 0),
    checkpoint_dir="outputs/checkpoints",
    save_checkpoint_secs=5,
    hooks=[tf.train.StopAtStepHook(last_step=arguments.steps)],
) as session:
    while not session.should_stop():
        found, at, _ = session.run([loss, step, train], {x: chance.uniform(-1, 1, 64)})
        if at % 50 == 0:
            run.log("loss", float(found), step=int(at))
            print(f"step {at}: loss {found:.5f}", flush=True)
