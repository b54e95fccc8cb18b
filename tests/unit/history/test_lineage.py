"""What single facts tell of where things came from."""

from __future__ import annotations

from services.history.domain.lineage import Edge, Node, told_by
from trainyard import _steps
from trainyard.dataset.v1.dataset_pb2 import DatasetVersionRegistered
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import DatasetInput, RunSpec


def test_transformations_of_a_dataset_show_where_it_is_registered_and_where_it_is_read() -> None:
    steps = [_steps.filter("*.png"), _steps.take(10)]
    spec = RunSpec(inputs=[DatasetInput(dataset="digits", version=2, steps=steps), DatasetInput(dataset="plain", version=1)])

    (node,) = told_by(DatasetVersionRegistered(name="digits", version=2, steps=steps))
    told = list(told_by(job.RunQueued(run_id="r", experiment="e", spec=spec)))

    assert isinstance(node, Node) and node.label == "digits version 2 after filter('*.png'), take(10)"
    assert Edge("dataset:digits:2", "run:r", "read after filter('*.png'), take(10)") in told
    assert Edge("dataset:plain:1", "run:r", "read") in told


def test_very_many_transformations_are_told_in_short() -> None:
    fact = DatasetVersionRegistered(name="digits", version=2, steps=[_steps.filter("x" * 1000)] * 100)

    (node,) = told_by(fact)

    assert isinstance(node, Node) and len(node.label) == 200 and node.label.endswith("...")
