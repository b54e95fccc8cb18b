"""Two nodes of two ranks, one ring: python examples/horovod/submit.py [POOL]. Exits non-zero where the run does not complete."""

from __future__ import annotations

import sys
from pathlib import Path

from trainyard import AmlCompute, ComputeTarget, ComputeTargetException, Experiment, MpiConfiguration, TensorFlow, Workspace

NAME = sys.argv[1] if len(sys.argv) > 1 else "ring"

workspace = Workspace.from_config()
try:
    pool = ComputeTarget(workspace, NAME)
except ComputeTargetException:
    pool = ComputeTarget.create(workspace, NAME, AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=2))

estimator = TensorFlow(
    source_directory=Path(__file__).parent / "script",
    entry_script="train.py",
    script_params={"--epochs": 5},
    compute_target=pool,
    node_count=2,
    process_count_per_node=2,
    distributed_training=MpiConfiguration(),
    framework_version="2.15",
    max_restarts=1,
)
run = Experiment(workspace, "horovod-example").submit(estimator)
run.wait_for_completion(show_output=True)
print(run.get_metrics())
print(run.get_metrics("loss", rank="all"))
