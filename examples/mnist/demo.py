"""The walk-through, blocks 1-6 and 9: from a workspace to a prediction over gRPC. Exits non-zero with the reason if a step fails."""

from __future__ import annotations

import argparse
import gzip
import os
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from make_digits import NAMES, make
from phases import phases

from trainyard import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    Dataset,
    Experiment,
    Model,
    ResourceConfiguration,
    TensorFlow,
    TrainyardException,
    Workspace,
)

HERE = Path(__file__).resolve().parent
# Where the digits and a copy of the model are put.
FOLDER = Path(os.environ.get("TRAINYARD_DEMO_FOLDER") or HERE)
SAMPLES = 5
WANTED_ACCURACY = 0.9


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over http on loopback, on any free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def say(number: str, text: str) -> None:
    print(f"\n== {number} {text}", flush=True)


def read_idx(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions]))


def require(right: Callable[[], bool], reason: str) -> None:
    if not right():
        raise SystemExit(f"demo failed: {reason}")


def demo(config: str | None, epochs: int) -> None:
    say("1", "Workspace and experiment")
    ws = Workspace.from_config(config)
    exp = Experiment(workspace=ws, name="tf-mnist")
    print(ws)

    data = FOLDER / "data"
    make(data)
    with served(data) as base:
        say("2", "A file dataset, data in place")
        dataset = Dataset.File.from_files(path=[f"{base}/{name}" for name in NAMES])
        dataset = dataset.register(workspace=ws, name="mnist dataset", description="training and test dataset", create_new_version=True)
        print(f"{dataset.name!r} version {dataset.version}:", *dataset.to_path(), sep="\n  ")

        say("3", "A compute target, found or created")
        try:
            target = ComputeTarget(workspace=ws, name="gpucluster")
            print("found gpucluster")
        except ComputeTargetException:
            wish = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
            target = ComputeTarget.create(ws, "gpucluster", wish)
            target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)

        say("4", "An estimator: a script, its folder, its parameters")
        est = TensorFlow(
            source_directory=str(HERE / "tf-mnist"),
            entry_script="tf_mnist.py",
            compute_target=target,
            use_gpu=True,
            framework_version="2.15",
            script_params={
                "--data-folder": dataset.as_named_input("mnist").as_mount(),
                "--batch-size": 50,
                "--first-layer-neurons": 300,
                "--second-layer-neurons": 100,
                "--learning-rate": 0.01,
                "--epochs": epochs,
            },
        )

        say("5", "Submit, watch, get everything back")
        run = exp.submit(est)
        run.wait_for_completion(show_output=True)
    metrics = run.get_metrics()
    require(lambda: "final_acc" in metrics, f"the run logged no final_acc; it logged {sorted(metrics)}")
    accuracy = float(metrics["final_acc"])
    files = run.get_file_names()
    print("metrics:", sorted(metrics), "\nfiles:", *files, sep="\n  ")

    say("6", "Register, and download")
    model = run.register_model(
        model_name="tf-dnn-mnist",
        model_path="outputs/model",
        model_framework=Model.Framework.TENSORFLOW,
        model_framework_version="2.15",
        resource_configuration=ResourceConfiguration(cpu=1, memory_in_gb=0.5),
    )
    print(f"{model.id}, digest {model.digest}, lineage {model.lineage}")
    run.download_files(prefix="outputs/model", output_directory=str(FOLDER / "model"), append_prefix=False)

    say("9", "Deploy without code, and call it")
    service = Model.deploy(ws, "tensorflow-web-service", [model], overwrite=True)
    service.wait_for_deployment(show_output=True)
    images, labels = read_idx(data / NAMES[2]), read_idx(data / NAMES[3])
    samples = (images[:SAMPLES].reshape(SAMPLES, -1) / np.float32(255)).astype(np.float32)
    answers = service.predict({"images": samples})
    by_grpc = next(iter(answers.values())).argmax(axis=1)
    by_rest = np.array(service.run({"instances": samples.tolist()})["predictions"]).argmax(axis=1)

    say("=", "What happened")
    for name, seconds, detail in phases(ws, run.id):
        print(f"  {name:<34} {seconds:7.2f} s  {detail}")
    print(f"final accuracy on {len(labels)} held-back digits: {accuracy:.4f}")
    for index in range(SAMPLES):
        print(f"  digit {index}: true label {labels[index]}, over gRPC {by_grpc[index]}, over REST {by_rest[index]}")
    stack = ws.config_path.resolve().parent if ws.config_path else "?"
    print(f"gRPC  {service.grpc_address}  tensorflow.serving.PredictionService/Predict")
    print(f"REST  {service.scoring_uri}")
    print(f"data  the four files: {data}; the platform's events, objects and logs: {stack}; a copy of the model: {FOLDER / 'model'}")
    require(lambda: accuracy >= WANTED_ACCURACY, f"the accuracy {accuracy:.4f} is below {WANTED_ACCURACY}")
    require(lambda: bool((by_grpc == by_rest).all()), "gRPC and REST gave different answers")
    require(lambda: int((by_grpc == labels[:SAMPLES]).sum()) >= SAMPLES - 1, "the endpoint does not know the digits that the script knew")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="config.json of the stack; without it the nearest one")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    try:
        demo(options.config, options.epochs)
    except TrainyardException as error:
        print(f"\ndemo failed: {type(error).__name__} ({error.code}): {error}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it is, the reason is the last line
        traceback.print_exc()
        print(f"\ndemo failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
