"""Started by run_logging.py in MLflow's own environment: metrics per second into one of its stores, and until it has given all of them back.

`python mlflow_logging.py sqlite|file` prints one JSON object.
"""

import json
import os
import sys
import tempfile
import time

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # it is there still, behind this

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

SINGLE, BATCHES, BATCH = 300, 20, 1000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri({"sqlite": f"sqlite:///{folder}/mlflow.db", "file": f"file://{folder}"}[sys.argv[1]])
        client = MlflowClient()
        run_id = client.create_run(client.create_experiment("bench")).info.run_id
        client.log_metric(run_id, "warm", 0.0)
        begun = time.perf_counter()
        for number in range(SINGLE):
            client.log_metric(run_id, "single", number / 3, step=number)
        single = SINGLE / (time.perf_counter() - begun)
        begun = time.perf_counter()
        for batch in range(BATCHES):
            now = int(time.time() * 1000)
            client.log_batch(run_id, [Metric("batched", number / 3, now, batch * BATCH + number) for number in range(BATCH)])
        written = time.perf_counter() - begun
        assert len(client.get_metric_history(run_id, "batched")) == BATCHES * BATCH
        answered = time.perf_counter() - begun
        assert len(client.get_metric_history(run_id, "single")) == SINGLE
    found = {"log_metric": single, "log_batch": BATCHES * BATCH / written, "log_batch_answered": BATCHES * BATCH / answered}
    json.dump(found, sys.stdout)


main()
