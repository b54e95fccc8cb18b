"""`azureml.core`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from pkgutil import extend_path
from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605
# Other distributions may have modules of their own below it.
__path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from trainyard import VERSION as VERSION
    from trainyard import ComputeTarget as ComputeTarget
    from trainyard import Dataset as Dataset
    from trainyard import Datastore as Datastore
    from trainyard import Environment as Environment
    from trainyard import Experiment as Experiment
    from trainyard import Model as Model
    from trainyard import Run as Run
    from trainyard import RunConfiguration as RunConfiguration
    from trainyard import ScriptRunConfig as ScriptRunConfig
    from trainyard import Webservice as Webservice
    from trainyard import Workspace as Workspace
    from trainyard import __version__ as __version__
