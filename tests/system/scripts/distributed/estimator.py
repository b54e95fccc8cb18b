"""tf.estimator.train_and_evaluate with a chief, a worker, a parameter server and an evaluator, which finds the chief's checkpoints in the
folder that they share."""

import json
import os

import tensorflow as tf

STEPS = 30
task = json.loads(os.environ["TF_CONFIG"])["task"]


def inputs():
    return tf.data.Dataset.from_tensors(({"x": [[1.0], [2.0]]}, [[3.0], [5.0]])).repeat()


estimator = tf.estimator.LinearRegressor(
    [tf.feature_column.numeric_column("x")],
    model_dir="outputs/model",
    config=tf.estimator.RunConfig(save_checkpoints_steps=10, log_step_count_steps=10),
)
tf.estimator.train_and_evaluate(
    estimator,
    tf.estimator.TrainSpec(inputs, max_steps=STEPS),
    tf.estimator.EvalSpec(inputs, steps=1, start_delay_secs=0, throttle_secs=0),
)
if task["type"] == "evaluator":
    loss = tf.train.load_variable("outputs/model", "global_step")
    print("evaluated step", int(loss))
print("done:", task["type"], task["index"])
