"""Every name that `azureml` gives: module -> home -> names. The modules beside this file are made from it:

    python -m azureml._write        (in this folder)

"new=old" gives `old` of its home under the name `new`. A name is looked up when it is first used, so importing costs nothing.
"""

from __future__ import annotations

NAMES: dict[str, dict[str, str]] = {
    "azureml": {},
    "azureml.contrib": {},
    "azureml.contrib.services": {},
    "azureml.contrib.services.aml_request": {"trainyard._raw_http": "AMLRequest rawhttp"},
    "azureml.contrib.services.aml_response": {"trainyard._raw_http": "AMLResponse"},
    "azureml.core": {
        "trainyard": (
            "VERSION __version__ ComputeTarget Dataset Datastore Environment Experiment Model Run RunConfiguration ScriptRunConfig Webservice "
            "Workspace"
        ),
    },
    "azureml.core.authentication": {
        "trainyard._authentication": (
            "AbstractAuthentication AzureCliAuthentication InteractiveLoginAuthentication MsiAuthentication ServicePrincipalAuthentication "
            "TokenAuthentication"
        ),
    },
    "azureml.core.compute": {"trainyard": "AmlCompute ComputeTarget ComputeTargetException"},
    "azureml.core.compute_target": {"trainyard": "ComputeTarget ComputeTargetException"},
    "azureml.core.conda_dependencies": {"trainyard": "CondaDependencies"},
    "azureml.core.dataset": {"trainyard": "Dataset"},
    "azureml.core.datastore": {"trainyard": "Datastore"},
    "azureml.core.environment": {
        "trainyard": "CondaDependencies Environment",
        "trainyard._environment": "DEFAULT_CPU_IMAGE DEFAULT_GPU_IMAGE DockerSection PythonSection",
    },
    "azureml.core.experiment": {"trainyard": "Experiment"},
    "azureml.core.image": {"trainyard._container_image": "ContainerImage"},
    "azureml.core.model": {"trainyard": "InferenceConfig Model"},
    "azureml.core.resource_configuration": {"trainyard": "ResourceConfiguration"},
    "azureml.core.run": {"trainyard": "Run", "trainyard._context": "_OfflineRun=OfflineRun"},
    "azureml.core.runconfig": {
        "trainyard": (
            "CondaDependencies DataReferenceConfiguration DockerConfiguration MpiConfiguration RunConfiguration TensorflowConfiguration"
        ),
        "trainyard._environment": "DEFAULT_CPU_IMAGE DEFAULT_GPU_IMAGE",
    },
    "azureml.core.script_run_config": {"trainyard": "ScriptRunConfig"},
    "azureml.core.webservice": {"trainyard": "AciWebservice LocalWebservice Webservice"},
    "azureml.core.workspace": {"trainyard": "Workspace"},
    "azureml.data": {"trainyard": "FileDataset"},
    "azureml.data.data_reference": {"trainyard": "DataReference"},
    "azureml.data.datapath": {"trainyard": "DataPath DataPathComputeBinding"},
    "azureml.data.dataset_consumption_config": {"trainyard": "DatasetConsumptionConfig"},
    "azureml.data.file_dataset": {"trainyard": "FileDataset"},
    "azureml.exceptions": {
        "trainyard": (
            "ActivityFailedException AuthenticationException AzureMLException=TrainyardException ComputeTargetException "
            "DiscoveryUrlNotFoundException ExperimentExecutionException ExperimentTimeoutException ImageException ModelNotFoundException "
            "ModelPathNotFoundException ProjectSystemException RunConfigurationException RunEnvironmentException ServiceException "
            "SnapshotException TrainingException UserErrorException WebserviceException"
        ),
    },
    "azureml.telemetry": {"trainyard._authentication": "set_diagnostics_collection"},
    "azureml.train": {},
    "azureml.train.dnn": {"trainyard": "Mpi ParameterServer TensorFlow"},
    "azureml.train.estimator": {"trainyard": "Estimator"},
    "azureml.train.hyperdrive": {},
    "azureml.widgets": {"trainyard._widget": "RunDetails"},
}

# Names of Azure's that there are not here ("*": any), and what to do. They raise ImportError with these words.
ELSEWHERE: dict[str, dict[str, str]] = {
    "azureml.core": {"Image": "images went away in 2020: deploy a model by Model.deploy(workspace, name, [model])"},
    "azureml.core.image": {
        "Image": "images went away in 2020: deploy a model by Model.deploy(workspace, name, [model])",
    },
    "azureml.core.webservice": {"AksWebservice": "there is no cluster of Kubernetes here: use AciWebservice"},
    "azureml.train.hyperdrive": {"*": "sweeps are not part of this version: submit a run for each set of parameters"},
}


def entries(module: str) -> dict[str, tuple[str, str]]:
    """name -> (home, the name there)"""
    found = {}
    for home, names in NAMES[module].items():
        for entry in names.split():
            name, _, old = entry.partition("=")
            found[name] = (home, old or name)
    return found
