"""The variables and arguments that a script is started with. Names: what Azure ML's users' scripts read."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import trainyard
from services.trainer_agent.adapters.environment import FOR_SCRIPTS, only
from services.trainer_agent.interpreting import ScriptPython
from trainyard._context import PARENT, SOCKET, SPOOL
from trainyard._lineage import framework_of
from trainyard.job.v1.spec_pb2 import DatasetInput

RUN_CONTEXT = Path(trainyard.__file__).resolve().parents[1]
ALIAS = RUN_CONTEXT / "azureml-alias"
TENSORFLOW_1 = Path(__file__).resolve().parent / "tensorflow1"
_THIRTY_DAYS = 30 * 86_400
# What scripts write where they want none.
_NO_DEVICES = ("", "-1")


@dataclass(frozen=True)
class RunToken:
    """For scripts that look whether they have one. It opens nothing and nobody asks for it: what may speak for the run is whoever may open
    the agent's socket. `expires`: seconds since 1970."""

    value: str
    expires: int

    @classmethod
    def new(cls, now: float, lasts_seconds: float | None) -> RunToken:
        return cls(secrets.token_urlsafe(32), int(now + (_THIRTY_DAYS if lasts_seconds is None else lasts_seconds)))


def identity(offer: Any) -> dict[str, str]:
    """The variables by which every process of one node's part of an attempt is known."""
    return {"AZUREML_RUN_ID": offer.run_id, "TRAINYARD_EPOCH": str(offer.epoch), "TRAINYARD_NODE_INDEX": str(offer.node_index)}


def variables(
    own: Mapping[str, str],
    offer: Any,
    *,
    python: ScriptPython,
    inputs: Mapping[str, str],
    socket: Path,
    temporary: Path,
    spool: Path,
    marks: Mapping[str, str],
    token: RunToken,
    gang: Mapping[str, str],
    threads: Mapping[str, str],
) -> dict[str, str]:
    """`own` is the agent's environment, of which only harmless names pass; `inputs` maps input names to paths on this node.

    `gang` goes before what the script's environment says, `threads` goes behind.
    """
    environment = offer.spec.environment
    given = only(own, FOR_SCRIPTS)
    given |= dict(threads) | {
        "PATH": os.pathsep.join([str(python.path.parent), given.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": str(python.prefix),
        "PYTHONPATH": os.pathsep.join(map(str, _script_path(python))),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(temporary),
        "AZUREML_ARM_SUBSCRIPTION": "local",
        "AZUREML_ARM_RESOURCEGROUP": "local",
        "AZUREML_ARM_WORKSPACE_NAME": "local",
        "AZUREML_ARM_PROJECT_NAME": offer.experiment,
        "AZUREML_OUTPUT_DIRECTORY": "./outputs",
        "AZUREML_WORKSPACE_ID": "local",
        "AZUREML_FRAMEWORK": framework_of(offer.spec),
        "AZUREML_COMMUNICATOR": "None",
        "AZUREML_DATASET_ENVIRONMENT_VARS": ",".join(f"{item.name}:{_mode(item)}" for item in offer.spec.inputs),
        "TRAINYARD_INPUTS": json.dumps(dict(inputs)),
        SOCKET: str(socket),
        SPOOL: str(spool),
        PARENT: offer.spec.parent_run_id,
    }
    if not python.has_azureml:
        # With these Azure's own SDK would take its service to be at hand; without them it keeps the run offline.
        given |= {
            "AZUREML_RUN_TOKEN": token.value,
            "AZUREML_RUN_TOKEN_EXPIRY": str(token.expires),
            "AZUREML_SERVICE_ENDPOINT": f"unix://{socket}",
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"unix://{socket}",
        }
    # An input that is called "path" must not be where programs are looked for.
    taken = frozenset(given)
    for name, path in inputs.items():
        given |= {f"AZUREML_DATAREFERENCE_{name}": path, **{it: path for it in (name.upper(), name) if it not in taken}}
    given |= dict(environment.environment_variables) | dict(gang) | identity(offer) | dict(marks)
    if environment.environment_variables.get("CUDA_VISIBLE_DEVICES") in _NO_DEVICES:
        given["CUDA_VISIBLE_DEVICES"] = ""
    if "PYTHONPATH" in environment.environment_variables:
        # The script's own folders come first; without ours it would not find its run.
        own_path = environment.environment_variables["PYTHONPATH"]
        given["PYTHONPATH"] = os.pathsep.join([own_path, *map(str, _script_path(python))])
    return given


def _script_path(python: ScriptPython) -> list[Path]:
    """Folders before the environment's own: the real SDK, where it is installed, is never stood before."""
    return [
        *([TENSORFLOW_1] if python.tensorflow_1 else []),
        RUN_CONTEXT,
        *([] if python.has_azureml else [ALIAS]),
    ]


def argv(python: ScriptPython, offer: Any, inputs: Mapping[str, str], variables: Mapping[str, str]) -> Sequence[str]:
    """A command's words have "$NAME" and "${NAME}" replaced by the script's variables, once; a name that is none of them stays. No shell."""
    if offer.spec.command:
        known = {**variables, **inputs}
        return [Template(word).safe_substitute(known) for word in offer.spec.command]
    values = [inputs[item.input] if item.WhichOneof("value") == "input" else item.text for item in offer.spec.arguments]
    return [str(python.path), offer.spec.entry_script, *values]


def _mode(item: Any) -> str:
    return "download" if item.mode == DatasetInput.MODE_DOWNLOAD else "mount"
