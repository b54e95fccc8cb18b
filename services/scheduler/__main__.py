"""The scheduler: runs, pools, leases."""

import uuid
from typing import NoReturn

from services.chassis.context import Context
from services.chassis.machine import this_machine
from services.chassis.service import Service
from services.chassis.settings import Settings
from services.scheduler import api
from services.scheduler.adapters.providers import provider_of
from services.scheduler.adapters.supervised_nodes import SupervisedNodes
from services.scheduler.handlers import SchedulerHandler
from services.scheduler.nodes import Nodes
from services.scheduler.pulse import pulse_for_ever


def main() -> NoReturn:
    settings = Settings.load("scheduler")
    incarnation = uuid.uuid4().hex
    handler = SchedulerHandler(settings.scheduler, incarnation, this_machine(settings.agent.fake_gpus))
    local = SupervisedNodes(settings.scheduler.supervisor_socket) if settings.scheduler.supervisor_socket else None

    async def pulse(context: Context) -> None:
        await pulse_for_ever(context, incarnation, lambda: handler.heard)

    service = (
        Service("scheduler", settings)
        .listens("trainyard.jobs", "trainyard.tasks", "trainyard.agents", "trainyard.heartbeats", to=handler, replays=("trainyard.leases",))
        .serves("trainyard.job.v1.JobService", api.jobs(handler))
        .serves("trainyard.cluster.v1.ComputeService", api.compute(handler))
        .beside(pulse)
        .beside(Nodes(handler, local, lambda pool: provider_of(pool, settings)).run)
    )
    service.run()


if __name__ == "__main__":
    main()
