"""Which page of the reference tells of what: the one table. A name of the client stands on exactly one page. Standard library only."""

from __future__ import annotations

PAGES: dict[str, tuple[str, ...]] = {
    "Workspaces": ("Workspace",),
    "Experiments and runs": ("Experiment", "Run"),
    "Data": (
        "Dataset",
        "FileDataset",
        "DatasetConsumptionConfig",
        "Datastore",
        "DataPath",
        "DataReference",
        "DataPathComputeBinding",
        "DataReferenceConfiguration",
    ),
    "Compute targets": ("ComputeTarget", "AmlCompute"),
    "Estimators": ("TensorFlow", "Estimator"),
    "Run configurations": (
        "ScriptRunConfig",
        "RunConfiguration",
        "DockerConfiguration",
        "MpiConfiguration",
        "TensorflowConfiguration",
        "Mpi",
        "ParameterServer",
    ),
    "Environments": ("Environment", "CondaDependencies"),
    "Models": ("Model", "ResourceConfiguration"),
    "Endpoints": ("Webservice", "AciWebservice", "LocalWebservice", "InferenceConfig"),
    "Notebooks": ("RunDetails",),
    "Errors": (
        "TrainyardException",
        "AzureMLException",
        "UserErrorException",
        "ServiceException",
        "AuthenticationException",
        "ProjectSystemException",
        "DiscoveryUrlNotFoundException",
        "ComputeTargetException",
        "SnapshotException",
        "ModelNotFoundException",
        "ModelPathNotFoundException",
        "ActivityFailedException",
        "WebserviceException",
        "ImageException",
        "TrainingException",
        "ExperimentExecutionException",
        "ExperimentTimeoutException",
        "RunConfigurationException",
        "RunEnvironmentException",
        "RunNotFoundException",
        "PlatformUnavailableException",
    ),
}


def path_of(title: str) -> str:
    """The page's file below the site's source."""
    return f"reference/{title.lower().replace(' ', '-')}.md"


def page(title: str) -> str:
    """Its text: the docstrings come in by mkdocstrings."""
    return "\n".join([f"# {title}", "", *(f"::: trainyard.{name}" for name in PAGES[title]), ""])
