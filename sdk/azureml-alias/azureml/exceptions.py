"""`azureml.exceptions`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605

if TYPE_CHECKING:
    from trainyard import ActivityFailedException as ActivityFailedException
    from trainyard import AuthenticationException as AuthenticationException
    from trainyard import ComputeTargetException as ComputeTargetException
    from trainyard import DiscoveryUrlNotFoundException as DiscoveryUrlNotFoundException
    from trainyard import ExperimentExecutionException as ExperimentExecutionException
    from trainyard import ExperimentTimeoutException as ExperimentTimeoutException
    from trainyard import ImageException as ImageException
    from trainyard import ModelNotFoundException as ModelNotFoundException
    from trainyard import ModelPathNotFoundException as ModelPathNotFoundException
    from trainyard import ProjectSystemException as ProjectSystemException
    from trainyard import RunConfigurationException as RunConfigurationException
    from trainyard import RunEnvironmentException as RunEnvironmentException
    from trainyard import ServiceException as ServiceException
    from trainyard import SnapshotException as SnapshotException
    from trainyard import TrainingException as TrainingException
    from trainyard import TrainyardException as AzureMLException  # noqa: F401
    from trainyard import UserErrorException as UserErrorException
    from trainyard import WebserviceException as WebserviceException
