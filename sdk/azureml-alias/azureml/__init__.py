"""`azureml`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605
