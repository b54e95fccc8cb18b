"""A script of 2019: TensorFlow 1 in session style, with azureml's imports. Nothing in it knows of TensorFlow 2 or of Trainyard."""

import argparse
import glob
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf
from azureml.core import Run
from tensorflow.examples.tutorials.mnist import input_data
from tensorflow.python.framework import ops

parser = argparse.ArgumentParser()
parser.add_argument("--data-folder", type=str, dest="data_folder")
parser.add_argument("--batch-size", type=int, dest="batch_size", default=50)
parser.add_argument("--learning-rate", type=float, dest="rate", default=0.01)
args = parser.parse_args()

found = glob.glob(os.path.join(args.data_folder, "**/train-images-idx3-ubyte.gz"), recursive=True)
mnist = input_data.read_data_sets(os.path.dirname(found[0]), one_hot=False, validation_size=0, seed=7)
assert not tf.executing_eagerly()

with tf.name_scope("network"):
    X = tf.placeholder(tf.float32, shape=(None, 28 * 28), name="X")
    y = tf.placeholder(tf.int64, shape=(None), name="y")
    h1 = tf.layers.dense(X, 100, activation=tf.nn.relu, name="h1", kernel_initializer=tf.contrib.layers.xavier_initializer(seed=1))
    output = tf.layers.dense(h1, 10, name="output", kernel_initializer=tf.contrib.layers.xavier_initializer(seed=2))

with tf.name_scope("train"):
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=output)
    loss = tf.reduce_mean(cross_entropy, name="loss")
    train_op = tf.train.GradientDescentOptimizer(learning_rate=args.rate).minimize(loss)

with tf.name_scope("eval"):
    correct = tf.nn.in_top_k(output, y, 1)
    acc_op = tf.reduce_mean(tf.cast(correct, tf.float32))

init = tf.global_variables_initializer()
saver = tf.train.Saver()
run = Run.get_context()
os.makedirs("./outputs/model", exist_ok=True)

with tf.Session() as sess:
    init.run()
    for epoch in range(12):
        for _ in range(mnist.train.num_examples // args.batch_size):
            X_batch, y_batch = mnist.train.next_batch(args.batch_size)
            sess.run(train_op, feed_dict={X: X_batch, y: y_batch})
        acc_val = acc_op.eval(feed_dict={X: mnist.test.images, y: mnist.test.labels})
        run.log("validation_acc", np.float(acc_val))
        print(epoch, "-- Validation accuracy:", acc_val, flush=True)
    run.log("final_acc", np.float(acc_val))
    saver.save(sess, "./outputs/model/mnist-tf.model")
    tf.saved_model.simple_save(sess, "./outputs/saved_model", inputs={"X": X}, outputs={"scores": output})

with tf.Session() as sess:
    saver.restore(sess, "./outputs/model/mnist-tf.model")
    assert abs(acc_op.eval(feed_dict={X: mnist.test.images, y: mnist.test.labels}) - acc_val) < 1e-6
    assert ops.get_default_graph() is sess.graph

inner = subprocess.run([sys.executable, "-c", "import tensorflow as tf; print(tf.Session)"], capture_output=True, text=True)
assert "client.session.Session" in inner.stdout, inner.stderr
