"""The walk-through as a user of Azure ML wrote it: python azureml_walkthrough.py BASE_URL, in a folder that holds tf-mnist."""

import json
import sys

import azureml.core
from azureml.core import Dataset, Experiment, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.core.resource_configuration import ResourceConfiguration
from azureml.exceptions import UserErrorException
from azureml.telemetry import set_diagnostics_collection
from azureml.train.estimator import Estimator

set_diagnostics_collection(send_diagnostics=True)
print("SDK version:", azureml.core.VERSION)
base = sys.argv[1]
names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")

ws = Workspace.from_config()
print(ws.name, ws.location, ws.resource_group, sep="\t")
exp = Experiment(workspace=ws, name="azureml-walkthrough")
try:
    dataset = Dataset.get_by_name(ws, "azureml mnist dataset")
except UserErrorException:
    dataset = Dataset.File.from_files(path=[f"{base}/{name}" for name in names])
    dataset = dataset.register(workspace=ws, name="azureml mnist dataset", description="digits", create_new_version=True)
print(dataset.to_path())

try:
    target = ComputeTarget(workspace=ws, name="azuremlpool")
except ComputeTargetException:
    config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=1)
    target = ComputeTarget.create(ws, "azuremlpool", config)
    target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
print(target.get_status().serialize()["provisioningState"])

est = Estimator(
    source_directory="./tf-mnist",
    entry_script="azureml_train.py",
    compute_target=target,
    use_gpu=True,
    script_params={"--data-folder": dataset.as_named_input("mnist").as_mount(), "--batch-size": 50},
)
run = exp.submit(est)
run.wait_for_completion(show_output=True)
model = run.register_model(
    model_name="azureml-walkthrough", model_path="outputs/model", resource_configuration=ResourceConfiguration(cpu=1, memory_in_gb=0.5)
)
run.download_files(prefix="outputs/model", output_directory="./model", append_prefix=False)
files = [name.split("/")[-1] for name in run.get_file_names() if name.startswith("outputs/model")]
print(json.dumps({"metrics": run.get_metrics(), "model": [model.name, model.version], "files": files}))
