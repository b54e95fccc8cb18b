"""`azureml.core.image`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from typing import TYPE_CHECKING

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605

if TYPE_CHECKING:
    from trainyard._container_image import ContainerImage as ContainerImage
