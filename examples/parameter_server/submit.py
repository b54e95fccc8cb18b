"""Two workers and a parameter server on two nodes: python examples/parameter_server/submit.py [POOL]. Exits non-zero where the run does not complete."""

from __future__ import annotations

import sys
from pathlib import Path

from trainyard import AmlCompute, ComputeTarget, ComputeTargetException, Experiment, TensorFlow, TensorflowConfiguration, Workspace

NAME = sys.argv[1] if len(sys.argv) > 1 else "servers"

workspace = Workspace.from_config()
try:
    pool = ComputeTarget(workspace, NAME)
except ComputeTargetException:
    pool = ComputeTarget.create(workspace, NAME, AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=2))

distributed = TensorflowConfiguration()
distributed.worker_count = 2
estimator = TensorFlow(
    source_directory=Path(__file__).parent / "script",
    entry_script="train.py",
    script_params={"--steps": 400},
    compute_target=pool,
    node_count=2,
    distributed_training=distributed,
    framework_version="2.15",
)
run = Experiment(workspace, "parameter-server-example").submit(estimator)
run.wait_for_completion(show_output=True)
print(run.get_metrics())
