"""Names of things that have none of their own, the same wherever they are worked out."""

from __future__ import annotations

import hashlib
from typing import Any


def environment_id(environment: Any) -> str:
    """SHA-256 of an EnvironmentSpec as 64 lower-case hex digits: the same for the same specification."""
    return hashlib.sha256(environment.SerializeToString(deterministic=True)).hexdigest()


def framework_of(spec: Any) -> str:
    """A RunSpec's framework in Azure's words: what its submitter said, else by its environment."""
    return str(spec.framework) or ("TensorFlow" if spec.environment.framework == "tensorflow" else "Python")
