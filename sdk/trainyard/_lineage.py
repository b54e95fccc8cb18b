"""Names of things that have none of their own, the same wherever they are worked out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

_OF_RUNS = "datastore://workspaceartifactstore/ExperimentRun/dcid."


def environment_id(environment: Any) -> str:
    """SHA-256 of an EnvironmentSpec as 64 lower-case hex digits: the same for the same specification."""
    return hashlib.sha256(environment.SerializeToString(deterministic=True)).hexdigest()


def framework_of(spec: Any) -> str:
    """A RunSpec's framework in Azure's words: what its submitter said, else by its environment."""
    return str(spec.framework) or ("TensorFlow" if spec.environment.framework == "tensorflow" else "Python")


def runs_of(files: Iterable[Any]) -> set[str]:
    """The runs that have left these SourceFiles behind, as a DataPath of their outputs names them."""
    paths = (file.url.removeprefix(_OF_RUNS) for file in files if file.url.startswith(_OF_RUNS))
    return {path.partition("/")[0] for path in paths} - {""}
