"""`azureml.contrib`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""

from pkgutil import extend_path

from azureml._lazy import serve

__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605
# Other distributions may have modules of their own below it.
__path__ = extend_path(__path__, __name__)
