"""`azureml.core.runconfig`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605

if TYPE_CHECKING:
    from trainyard import CondaDependencies as CondaDependencies
    from trainyard import DataReferenceConfiguration as DataReferenceConfiguration
    from trainyard import DockerConfiguration as DockerConfiguration
    from trainyard import MpiConfiguration as MpiConfiguration
    from trainyard import RunConfiguration as RunConfiguration
    from trainyard import TensorflowConfiguration as TensorflowConfiguration
    from trainyard._environment import DEFAULT_CPU_IMAGE as DEFAULT_CPU_IMAGE
    from trainyard._environment import DEFAULT_GPU_IMAGE as DEFAULT_GPU_IMAGE
