"""What Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass

from services.serving.model_server.errors import NOT_FOUND
from services.serving.model_server.meter import Histogram, Meter
from services.serving.model_server.metrics import Metrics


@dataclass
class Measured:
    name: str
    version: int
    meter: Meter


def lines(metrics: Metrics) -> list[str]:
    return metrics.text().splitlines()


def test_a_histogram_counts_what_is_at_most_as_much() -> None:
    histogram = Histogram((1.0, 10.0))

    for value in (0.5, 1.0, 5.0, 100.0):
        histogram.observe(value)

    assert (histogram.counts, histogram.total) == ([2, 1, 1], 106.5)


def test_requests_are_counted_by_model_and_status_and_their_latency_by_call() -> None:
    metrics = Metrics(lambda: [], lambda: True)

    metrics.observe("a", "Predict", "REST", 0, 20_000)
    metrics.observe("a", "Predict", "REST", NOT_FOUND, 9_000)

    told = lines(metrics)
    assert ':tensorflow:serving:request_count{model_name="a",status="OK"} 1' in told
    assert ':tensorflow:serving:request_count{model_name="a",status="NOT_FOUND"} 1' in told
    labels = 'model_name="a",API="Predict",entrypoint="REST"'
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="10"}} 1' in told
    assert f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}} 2' in told
    assert f":tensorflow:serving:request_latency_sum{{{labels}}} 29.0" in told
    assert f":tensorflow:serving:request_latency_count{{{labels}}} 2" in told


def test_time_in_the_queue_and_in_the_graph_are_told_apart() -> None:
    meter = Meter(3)
    meter.ran(8, 500_000)
    meter.succeeded(8, 100_000, 500_000)
    meter.failed(7)

    told = lines(Metrics(lambda: [Measured("a", 3, meter)], lambda: False))
    counted = meter.statistics()

    of = 'model_name="a",version="3"'
    for line in [
        f"trainyard_serving_queue_latency_sum{{{of}}} 100.0",
        f":tensorflow:serving:runtime_latency_sum{{{of}}} 500.0",
        f"trainyard_serving_rows_total{{{of}}} 8",
        f"trainyard_serving_runs_total{{{of}}} 1",
        f"trainyard_serving_failures_total{{{of}}} 1",
        f'trainyard_serving_batches_total{{{of},size="8"}} 1',
        'trainyard_serving_loaded_versions{model_name="a"} 1',
        "trainyard_serving_ready 0",
    ]:
        assert line in told
    assert (counted.inferences, counted.executions, counted.success.nanoseconds, counted.fail.count) == (8, 1, 600_000, 1)


def test_calls_that_are_not_answered_yet_are_told() -> None:
    assert "trainyard_serving_under_way 3" in lines(Metrics(lambda: [], lambda: True, lambda: 3))


def test_names_that_callers_make_up_do_not_fill_the_memory_and_are_written_safely() -> None:
    metrics = Metrics(lambda: [], lambda: True)

    for number in range(2000):
        metrics.observe(f"model-{number}", "Predict", "GRPC", NOT_FOUND, 1)
    metrics.observe('model-0"} 1\n', "Predict", "GRPC", NOT_FOUND, 1)

    told = [line for line in lines(metrics) if line.startswith(":tensorflow:serving:request_count")]
    assert len(told) == 1001
    assert ':tensorflow:serving:request_count{model_name="(others)",status="NOT_FOUND"} 1001' in told


def test_callers_do_not_choose_how_many_batch_sizes_are_told() -> None:
    meter = Meter(3)

    for rows in range(10_000):
        meter.ran(rows, 1)

    told = meter.statistics().batches
    assert len(told) < 300
    assert sum(it.count for it in told.values()) == 10_000
