"""`azureml.core.authentication`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605

if TYPE_CHECKING:
    from trainyard._authentication import AbstractAuthentication as AbstractAuthentication
    from trainyard._authentication import AzureCliAuthentication as AzureCliAuthentication
    from trainyard._authentication import InteractiveLoginAuthentication as InteractiveLoginAuthentication
    from trainyard._authentication import MsiAuthentication as MsiAuthentication
    from trainyard._authentication import ServicePrincipalAuthentication as ServicePrincipalAuthentication
    from trainyard._authentication import TokenAuthentication as TokenAuthentication
