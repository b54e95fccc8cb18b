"""Trainyard's client. Names load on first use, so `from trainyard import Run` needs nothing but the standard library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For type checkers and editors, which cannot see names that load on first use.
    from trainyard._compute import AmlCompute as AmlCompute
    from trainyard._compute import ComputeTarget as ComputeTarget
    from trainyard._conda import CondaDependencies as CondaDependencies
    from trainyard._datapath import DataPath as DataPath
    from trainyard._datapath import DataPathComputeBinding as DataPathComputeBinding
    from trainyard._datapath import DataReference as DataReference
    from trainyard._datapath import DataReferenceConfiguration as DataReferenceConfiguration
    from trainyard._dataset import Dataset as Dataset
    from trainyard._dataset import FileDataset as FileDataset
    from trainyard._dataset_input import DatasetConsumptionConfig as DatasetConsumptionConfig
    from trainyard._datastore import Datastore as Datastore
    from trainyard._distributed import Mpi as Mpi
    from trainyard._distributed import MpiConfiguration as MpiConfiguration
    from trainyard._distributed import ParameterServer as ParameterServer
    from trainyard._distributed import TensorflowConfiguration as TensorflowConfiguration
    from trainyard._environment import Environment as Environment
    from trainyard._errors import ActivityFailedException as ActivityFailedException
    from trainyard._errors import AuthenticationException as AuthenticationException
    from trainyard._errors import AzureMLException as AzureMLException
    from trainyard._errors import ComputeTargetException as ComputeTargetException
    from trainyard._errors import DiscoveryUrlNotFoundException as DiscoveryUrlNotFoundException
    from trainyard._errors import ExperimentExecutionException as ExperimentExecutionException
    from trainyard._errors import ExperimentTimeoutException as ExperimentTimeoutException
    from trainyard._errors import ImageException as ImageException
    from trainyard._errors import ModelNotFoundException as ModelNotFoundException
    from trainyard._errors import ModelPathNotFoundException as ModelPathNotFoundException
    from trainyard._errors import PlatformUnavailableException as PlatformUnavailableException
    from trainyard._errors import ProjectSystemException as ProjectSystemException
    from trainyard._errors import RunConfigurationException as RunConfigurationException
    from trainyard._errors import RunEnvironmentException as RunEnvironmentException
    from trainyard._errors import RunNotFoundException as RunNotFoundException
    from trainyard._errors import ServiceException as ServiceException
    from trainyard._errors import SnapshotException as SnapshotException
    from trainyard._errors import TrainingException as TrainingException
    from trainyard._errors import TrainyardException as TrainyardException
    from trainyard._errors import UserErrorException as UserErrorException
    from trainyard._errors import WebserviceException as WebserviceException
    from trainyard._estimator import Estimator as Estimator
    from trainyard._estimator import TensorFlow as TensorFlow
    from trainyard._experiment import Experiment as Experiment
    from trainyard._inference_config import InferenceConfig as InferenceConfig
    from trainyard._model import Model as Model
    from trainyard._resource_configuration import ResourceConfiguration as ResourceConfiguration
    from trainyard._run import Run as Run
    from trainyard._run_configuration import DockerConfiguration as DockerConfiguration
    from trainyard._run_configuration import RunConfiguration as RunConfiguration
    from trainyard._script_run_config import ScriptRunConfig as ScriptRunConfig
    from trainyard._webservice import Webservice as Webservice
    from trainyard._webservice_kinds import AciWebservice as AciWebservice
    from trainyard._webservice_kinds import LocalWebservice as LocalWebservice
    from trainyard._widget import RunDetails as RunDetails
    from trainyard._workspace import Workspace as Workspace

__version__ = VERSION = "0.1.0"

_HOMES = {
    "_workspace": ("Workspace",),
    "_experiment": ("Experiment",),
    "_dataset": ("Dataset", "FileDataset"),
    "_dataset_input": ("DatasetConsumptionConfig",),
    "_datastore": ("Datastore",),
    "_datapath": ("DataPath", "DataPathComputeBinding", "DataReference", "DataReferenceConfiguration"),
    "_compute": ("ComputeTarget", "AmlCompute"),
    "_estimator": ("TensorFlow", "Estimator"),
    "_environment": ("Environment",),
    "_conda": ("CondaDependencies",),
    "_script_run_config": ("ScriptRunConfig",),
    "_run_configuration": ("RunConfiguration", "DockerConfiguration"),
    "_distributed": ("MpiConfiguration", "TensorflowConfiguration", "Mpi", "ParameterServer"),
    "_run": ("Run",),
    "_model": ("Model",),
    "_resource_configuration": ("ResourceConfiguration",),
    "_inference_config": ("InferenceConfig",),
    "_webservice": ("Webservice",),
    "_webservice_kinds": ("AciWebservice", "LocalWebservice"),
    "_widget": ("RunDetails",),
    "_errors": (
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
_NAMES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted([*_NAMES, "VERSION"])  # noqa: PLE0605


if not TYPE_CHECKING:  # to a type checker a name that is not there must be an error

    def __getattr__(name: str) -> Any:
        module = _NAMES.get(name)
        if module is None:
            raise AttributeError(f"module 'trainyard' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"trainyard.{module}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
