"""The registry: model versions and environments that never change, and where each came from."""

import sys

from services.chassis.context import Context
from services.chassis.service import Service
from services.chassis.settings import Settings
from services.chassis.worker import Worker
from services.registry import api, environment_api, environment_handlers
from services.registry.adapters.folded_runs import FoldedRuns
from services.registry.checking import Checking
from services.registry.deleting import Deleting
from services.registry.endpoint_shelf import TOPIC as ENDPOINTS
from services.registry.handlers import JOBS, TOPIC, RegistryHandler
from services.registry.removing import Removing
from services.registry.shelf import DELETE, REGISTER, REMOVE, Shelf
from trainyard._objects import MinioObjects


def main() -> int:
    settings = Settings.load("registry")
    store = settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)

    def register(context: Context) -> Worker:
        def is_being_removed(digest: str) -> bool:
            with context.store.reading() as documents:
                return Shelf(documents).is_being_removed(digest)

        risky = settings.registry.operations
        checking = Checking(FoldedRuns(context), objects, risky_operations=risky, is_being_removed=is_being_removed)
        return Worker(REGISTER, checking, parallel=32)

    def delete(context: Context) -> Worker:
        return Worker(DELETE, Deleting(context.in_log, context.caught_up_whole))

    return (
        Service("registry", settings)
        .listens(TOPIC, JOBS, ENDPOINTS, environment_handlers.TOPIC, to=RegistryHandler())
        .serves("trainyard.model.v1.ModelService", api.models)
        .serves("trainyard.environment.v1.EnvironmentService", environment_api.environments)
        .works(register)
        .works(delete)
        .works(lambda _: Worker(REMOVE, Removing(objects)))
        .run()
    )


if __name__ == "__main__":
    sys.exit(main())
