"""TensorFlow 1's way: Server, ClusterSpec, Supervisor. Workers share the variables that a parameter server keeps; each ends by itself."""

import json
import os

import tensorflow as tf

STEPS = 40
config = json.loads(os.environ["TF_CONFIG"])
job, index = config["task"]["type"], config["task"]["index"]
cluster = tf.train.ClusterSpec(config["cluster"])
server = tf.train.Server(cluster, job_name=job, task_index=index)
if job == "ps":
    server.join()

with tf.device(tf.train.replica_device_setter(worker_device=f"/job:worker/task:{index}", cluster=cluster)):
    global_step = tf.train.get_or_create_global_step()
    weight = tf.get_variable("weight", initializer=0.0)
    loss = tf.square(weight * 2.0 - 6.0)
    train = tf.train.GradientDescentOptimizer(0.02).minimize(loss, global_step=global_step)

supervisor = tf.train.Supervisor(is_chief=index == 0, logdir="outputs/train", global_step=global_step, recovery_wait_secs=1)
# A worker that has ended must not hold up the others.
only = tf.ConfigProto(device_filters=["/job:ps", f"/job:worker/task:{index}"])
with supervisor.managed_session(server.target, config=only) as session:
    mine = 0
    while True:
        _, step, found = session.run([train, global_step, weight])
        mine += 1
        if step >= STEPS and mine >= 5:
            break
print(f"worker {index}: step {step}, {mine} of them mine, weight {found:.2f}")
assert abs(found - 3.0) < 0.5, found
