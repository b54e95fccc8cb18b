"""What single facts tell of where things came from."""

from __future__ import annotations

from services.history.domain.lineage import Edge, Node, told_by
from trainyard import _steps
from trainyard.dataset.v1.dataset_pb2 import DatasetVersionRegistered, SourceFile
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


def test_a_version_comes_from_the_one_that_it_was_made_of() -> None:
    part = list(told_by(DatasetVersionRegistered(name="part", version=3, based_on="whole", based_on_version=2)))
    forged = list(told_by(DatasetVersionRegistered(name="part", version=3, based_on="part", based_on_version=3)))

    assert Edge("dataset:whole:2", "dataset:part:3", "derived") in part
    assert [it for it in forged if isinstance(it, Edge)] == []


def edges_to(run_id: str, spec: RunSpec) -> list[tuple[str, str]]:
    told = told_by(job.RunQueued(run_id=run_id, experiment="e", spec=spec))
    return [(it.source, it.how) for it in told if isinstance(it, Edge) and it.how != "ran"]


def test_a_run_comes_from_those_whose_outputs_it_reads_and_from_the_one_that_it_goes_on_with() -> None:
    of_runs = "datastore://workspaceartifactstore/ExperimentRun/dcid."
    files = [
        SourceFile(url=url)
        for url in (f"{of_runs}e_1_ab/outputs/a", f"{of_runs}e_1_ab/outputs/b", f"{of_runs}e_2/c", "datastore://x/e_3/a")
    ]
    spec = RunSpec(inputs=[DatasetInput(files=files), DatasetInput(manifest_key="k", run_ids=["e_4"])], resume_from="e_1_ab")

    assert edges_to("r", spec) == [("run:e_1_ab", "outputs"), ("run:e_1_ab", "resumed"), ("run:e_2", "outputs"), ("run:e_4", "outputs")]


def test_a_forged_run_comes_from_no_run_without_a_name_nor_from_itself() -> None:
    files = [SourceFile(url=f"datastore://workspaceartifactstore/ExperimentRun/dcid.{rest}") for rest in ("", "/a", "r/a")]

    assert edges_to("r", RunSpec(inputs=[DatasetInput(files=files, run_ids=["", "r"])], resume_from="r")) == []
