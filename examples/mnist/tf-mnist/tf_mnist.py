"""A small digit classifier: two hidden layers, metrics to the run, a SavedModel in ./outputs/model."""

import argparse
import glob
import gzip
import os
import struct

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from trainyard import Run  # noqa: E402

PIXELS, CLASSES = 784, 10


def read(folder, name):
    """An IDX file, wherever below the folder it lies: mounted data keeps its source's depth."""
    found = glob.glob(os.path.join(folder, "**", name), recursive=True)
    if not found:
        raise SystemExit(f"There is no {name} below {folder}")
    with gzip.open(found[0], "rb") as file:
        dimensions = struct.unpack(">HBB", file.read(4))[2]
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), np.uint8).reshape(shape)


def images(folder, name):
    return read(folder, name).reshape(-1, PIXELS).astype(np.float32) / 255.0


class Classifier(tf.Module):
    def __init__(self, first, second):
        super().__init__()
        sizes = (PIXELS, first, second, CLASSES)
        random = tf.random.Generator.from_seed(1)
        self.weights = [
            tf.Variable(random.normal((rows, columns)) * (2.0 / rows) ** 0.5, name=f"weights_{layer}")
            for layer, (rows, columns) in enumerate(zip(sizes, sizes[1:]))  # noqa: B905 - the script also runs on Python 3.8
        ]
        self.biases = [tf.Variable(tf.zeros(columns), name=f"biases_{layer}") for layer, columns in enumerate(sizes[1:])]

    def logits(self, inputs):
        for weights, biases in zip(self.weights[:-1], self.biases[:-1]):  # noqa: B905
            inputs = tf.nn.relu(inputs @ weights + biases)
        return inputs @ self.weights[-1] + self.biases[-1]

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32, name="images")])
    def serve(self, images):
        return {"probabilities": tf.nn.softmax(self.logits(images))}

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32), tf.TensorSpec([None], tf.int32)])
    def accuracy(self, inputs, labels):
        right = tf.equal(tf.argmax(self.logits(inputs), axis=1, output_type=tf.int32), labels)
        return tf.reduce_mean(tf.cast(right, tf.float32))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-folder", required=True)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--first-layer-neurons", type=int, default=300)
    parser.add_argument("--second-layer-neurons", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    train_x, train_y = images(options.data_folder, "train-images-idx3-ubyte.gz"), read(options.data_folder, "train-labels-idx1-ubyte.gz")
    test_x, test_y = images(options.data_folder, "t10k-images-idx3-ubyte.gz"), read(options.data_folder, "t10k-labels-idx1-ubyte.gz")
    train_y, test_y = train_y.astype(np.int32), test_y.astype(np.int32)
    print(f"{len(train_x)} images to learn from, {len(test_x)} held back; TensorFlow {tf.__version__}")

    run = Run.get_context()
    model = Classifier(options.first_layer_neurons, options.second_layer_neurons)
    variables = model.trainable_variables
    rate = tf.constant(options.learning_rate, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, PIXELS], tf.float32), tf.TensorSpec([None], tf.int32)])
    def step(inputs, labels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model.logits(inputs)))
        for variable, gradient in zip(variables, tape.gradient(loss, variables)):  # noqa: B905
            variable.assign_sub(rate * gradient)
        return loss

    shuffle = np.random.default_rng(1)
    accuracy = 0.0
    for epoch in range(options.epochs):
        order = shuffle.permutation(len(train_x))
        for start in range(0, len(order), options.batch_size):
            batch = order[start : start + options.batch_size]
            step(tf.constant(train_x[batch]), tf.constant(train_y[batch]))
        training = float(model.accuracy(tf.constant(train_x[batch]), tf.constant(train_y[batch])))
        accuracy = float(model.accuracy(tf.constant(test_x), tf.constant(test_y)))
        print(f"epoch {epoch:2d}: training accuracy {training:.3f}, validation accuracy {accuracy:.3f}")
        run.log("training_acc", training)
        run.log("validation_acc", accuracy)
    run.log("final_acc", accuracy)

    os.makedirs("./outputs/model", exist_ok=True)
    tf.saved_model.save(model, "./outputs/model", signatures={"serving_default": model.serve})
    print(f"final accuracy {accuracy:.4f}; the model lies in ./outputs/model")


if __name__ == "__main__":
    main()
