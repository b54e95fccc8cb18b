"""What runs and their statuses are called, in Azure's words. Loads with the standard library alone."""

from __future__ import annotations

from typing import Any

from trainyard._errors import UserErrorException

STATUS_NAMES = {
    "QUEUED": "Queued",
    "PROVISIONING": "Provisioning",
    "PREPARING": "Preparing",
    "RUNNING": "Running",
    "FINALIZING": "Finalizing",
    "COMPLETED": "Completed",
    "FAILED": "Failed",
    "CANCELED": "Canceled",
    "CANCEL_REQUESTED": "CancelRequested",
    "NOT_RESPONDING": "NotResponding",
    "REJECTED": "Failed",
}


def status_name(number: int) -> str:
    from trainyard.job.v1 import job_pb2

    return STATUS_NAMES.get(job_pb2.RunStatus.Name(number).removeprefix("RUN_STATUS_"), "NotStarted")


def statuses_named(name: str | None) -> list[int]:
    """Numbers of the statuses that are shown under that name; none: every one."""
    from trainyard.job.v1 import job_pb2

    if not name:
        return []
    found = [job_pb2.RunStatus.Value(f"RUN_STATUS_{ours}") for ours, shown in STATUS_NAMES.items() if shown == name]
    if not found:
        raise UserErrorException(
            f"There is no status {name!r}; there is: {', '.join(sorted(set(STATUS_NAMES.values())))}.", target="status"
        )
    return found


def type_of(message: Any) -> str:
    """A run's type in Azure's words."""
    return "azureml.interactiverun" if message.opened else "azureml.scriptrun"
