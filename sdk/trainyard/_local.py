"""compute_target "local": this machine, as a pool of one node that is made when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainyard._errors import ComputeTargetException
from trainyard._run_configuration import LOCAL

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_IDLE_SECONDS = 600


def ensure(workspace: Workspace, compute_target: str) -> None:
    """The pool `local` is there afterwards; any other target is left alone. Two clients at once make one pool."""
    if compute_target != LOCAL:
        return
    from trainyard._compute import AmlCompute, ComputeTarget

    try:
        ComputeTarget(workspace, LOCAL)
    except ComputeTargetException as error:
        if error.code != "ComputeTargetNotFound":
            raise
        wish = AmlCompute.provisioning_configuration(vm_size="LOCAL", max_nodes=1, idle_seconds_before_scaledown=_IDLE_SECONDS)
        ComputeTarget.create(workspace, LOCAL, wish)
