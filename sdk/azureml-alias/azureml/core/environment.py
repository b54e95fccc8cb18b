"""`azureml.core.environment`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605

if TYPE_CHECKING:
    from trainyard import CondaDependencies as CondaDependencies
    from trainyard import Environment as Environment
    from trainyard._environment import DEFAULT_CPU_IMAGE as DEFAULT_CPU_IMAGE
    from trainyard._environment import DEFAULT_GPU_IMAGE as DEFAULT_GPU_IMAGE
    from trainyard._environment import DockerSection as DockerSection
    from trainyard._environment import PythonSection as PythonSection
