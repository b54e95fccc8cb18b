"""TensorFlow 2's ParameterServerStrategy: the chief coordinates, workers and parameter servers serve until they are ended."""

import json
import os

import tensorflow as tf

STEPS = 20
task = json.loads(os.environ["TF_CONFIG"])["task"]
resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
if task["type"] in ("worker", "ps"):
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=task["type"], task_index=task["index"], protocol=resolver.rpc_layer or "grpc", start=True
    )
    server.join()

strategy = tf.distribute.ParameterServerStrategy(resolver)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
with strategy.scope():
    weight = tf.Variable(0.0)
    seen = tf.Variable(0, dtype=tf.int64)


@tf.function
def step():
    def replica():
        gradient = 4.0 * (weight * 2.0 - 6.0)
        weight.assign_sub(0.02 * gradient)
        seen.assign_add(1)

    strategy.run(replica)


for _ in range(STEPS):
    coordinator.schedule(step)
coordinator.join()
print(f"chief: {int(seen)} steps, weight {float(weight):.2f}")
assert int(seen) == STEPS and abs(float(weight) - 3.0) < 0.5
# tf.train.Checkpoint would have each parameter server write its part on its own node.
with open("outputs/weight", "w") as file:
    file.write(str(float(weight)))
