"""Run in a TensorFlow environment: `python serving_model.py FOLDER` saves the model that all servers are measured on, 784-128-128-10."""

import sys

import tensorflow as tf


class Perceptron(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        random, sizes = tf.random.Generator.from_seed(7), [784, 128, 128, 10]
        self.layers = [tf.Variable(random.normal(shape) / 20) for shape in zip(sizes, sizes[1:], strict=False)]

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "x")])
    def __call__(self, x):  # type: ignore[no-untyped-def]
        for weights in self.layers[:-1]:
            x = tf.nn.relu(x @ weights)
        return {"y": tf.nn.softmax(x @ self.layers[-1])}


made = Perceptron()
tf.saved_model.save(made, sys.argv[1], signatures=made.__call__)
