"""Batching on against off, on a model that costs what it computes: calls of one row, 1 to 128 in flight, over gRPC on one core.

Both servers are up at once and asked in turns, each with as many threads as suits it: calls that share a run have to be there at once.
"""

from __future__ import annotations

import struct
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import serving_load
from benchmarks.report import Row
from services.serving.model_server.wire import Wire
from tests.conftest import free_port

TRIALS, REQUESTS = 3, {1: 500, 8: 1500, 32: 2000, 128: 3000}
_CALL = "/tensorflow.serving.PredictionService/Predict"
_MOST = 128


def measure(_: Path) -> list[Row]:
    serving_load.check_tools()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serving_load.save_model(folder / "model", "convolutional")
        batching = folder / "batching.config"
        batching.write_text(
            f"max_batch_size {{ value: {_MOST} }} batch_timeout_micros {{ value: 0 }} num_batch_threads {{ value: 1 }} "
            f"max_enqueued_batches {{ value: {_MOST} }}"
        )
        body = folder / "row.grpc"
        body.write_bytes(serving_load.frame(_request()))
        about = ["--model-name=conv", f"--model-path={folder / 'model'}", "--version=1"]
        shared = ["--enable-batching", f"--batching-parameters-file={batching}", f"--grpc-max-threads={_MOST}"]
        off, on = free_port(), free_port()
        rates: dict[tuple[int, int], list[float]] = defaultdict(list)
        times: dict[tuple[int, int], list[float]] = defaultdict(list)
        with (
            serving_load.model_server(folder, free_port(), off, *about),
            serving_load.model_server(folder, free_port(), on, *about, *shared),
        ):
            for port in (off, on):
                serving_load.load(f"http://127.0.0.1:{port}{_CALL}", body, _MOST, 2 * _MOST)
            for _trial in range(TRIALS):
                for at_once, requests in REQUESTS.items():
                    for port in (off, on):
                        rate, took = serving_load.load(f"http://127.0.0.1:{port}{_CALL}", body, at_once, requests)
                        rates[port, at_once].append(rate)
                        times[port, at_once] += took
    return [row for at_once in REQUESTS for row in _rows(at_once, rates, times, off, on)]


def _request() -> bytes:
    request = Wire().PredictRequest()
    request.model_spec.name = "conv"
    tensor = request.inputs["x"]
    tensor.dtype, tensor.tensor_content = 1, struct.pack("<784f", *((number % 17) / 17 for number in range(784)))
    for size in (1, 784):
        tensor.tensor_shape.dim.add(size=size)
    return bytes(request.SerializeToString())


def _rows(
    at_once: int, rates: dict[tuple[int, int], list[float]], times: dict[tuple[int, int], list[float]], off: int, on: int
) -> list[Row]:
    rows = []
    for port, what in ((off, "batching off"), (on, "batching on")):
        rows.append(Row(f"convolutional net, {at_once} in flight, {what}", "requests/s", rates[port, at_once]))
        rows += [Row(f"  the same, p{percent}", "ms", [serving_load.percentile(times[port, at_once], percent)]) for percent in (50, 99)]
    ratios = [a / b for a, b in zip(rates[on, at_once], rates[off, at_once], strict=True)]
    return [*rows, Row(f"  on to off, {at_once} in flight", "times", ratios)]


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
