"""What a model server or a scoring script has around it: packages, paths, and variables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import trainyard
from services.serving.ports import Content, Fetched
from trainyard.endpoint.v1.endpoint_pb2 import Limits

# What the model server imports beside TensorFlow; all fit every line of it.
SERVER_PACKAGES = ("grpcio==1.85.1", "orjson==3.13.0", "protobuf>=4.25.3,<8")
REPO = Path(__file__).resolve().parents[3]
# So that a scoring script finds `trainyard` and `azureml`, behind all that its environment has.
SDK = (Path(trainyard.__file__).resolve().parents[1], Path(trainyard.__file__).resolve().parents[1] / "azureml-alias")
# A list of what is given, never of what is kept back: keys of the object store are no business of a user's model.
_GIVEN = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD")
_GIVEN_PREFIXES = ("LC_", "TF_", "CUDA_", "NVIDIA_", "OMP_", "KMP_", "MKL_", "GRPC_", "MALLOC_")


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a model server may see of this service's environment."""
    given = {name: value for name, value in ours.items() if name in _GIVEN or name.startswith(_GIVEN_PREFIXES)}
    return {**given, "PYTHONPATH": str(REPO), "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}


def code_variables(content: Content, fetched: Fetched) -> dict[str, str]:
    """What a scoring script finds in its environment; nothing without code."""
    if content.scoring is None:
        return {}
    own = dict(content.scoring.environment.environment_variables)
    return own | {
        "PYTHONPATH": str(REPO),  # the scoring server takes it away before it reads the script
        "AZUREML_MODEL_DIR": str(fetched.model_dir),
        "AZUREML_ENTRY_SCRIPT": content.scoring.entry_script,
        "SERVICE_NAME": content.endpoint,
    }


def limits_as_variables(limits: Limits) -> dict[str, str]:
    """Threads that compute, for TensorFlow and for whatever goes by OpenMP; nothing where there is no bound."""
    if not limits.cpu_cores:
        return {}
    threads = str(math.ceil(limits.cpu_cores))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, threads)
