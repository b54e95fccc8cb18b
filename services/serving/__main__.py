"""The serving service: registered model versions behind endpoints that anyone can call."""

import sys

from services.chassis.context import Context
from services.chassis.loop.kafka_client import KafkaPublisher
from services.chassis.service import Service
from services.chassis.settings import Settings
from services.chassis.worker import Worker
from services.serving import api
from services.serving.adapters.deployment_files import DeploymentFiles
from services.serving.adapters.door_process import DoorProcess, DoorTable
from services.serving.adapters.endpoint_certificates import EndpointCertificates
from services.serving.adapters.endpoint_keys import EndpointKeys
from services.serving.adapters.endpoint_logs import EndpointLogs
from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.model_environments import ModelEnvironments
from services.serving.adapters.model_files import CachedModelFiles
from services.serving.adapters.model_servers import ModelServers, reachable_at
from services.serving.adapters.sample_spools import SampleSpools
from services.serving.adapters.server_files import ServerFiles
from services.serving.adapters.sources import CachedSources
from services.serving.caretaker import World
from services.serving.crowd import Crowd
from services.serving.deploying import Deploying
from services.serving.handlers import MODELS, TOPIC, ServingHandler
from services.serving.request_log import RequestLog
from services.serving.shelf import DEPLOY
from services.serving.shown import Door
from services.serving.supervisor import Supervisor
from trainyard._objects import MinioObjects


def main() -> int:
    settings = Settings.load("serving")
    store = settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)
    home = settings.home.resolve()
    logs = EndpointLogs(home)
    keys = EndpointKeys(home, settings.serving.key_secret.get_secret_value())
    spools = SampleSpools(home)
    certificates = EndpointCertificates(home)
    table = DoorTable(home, settings.host if settings.host != "0.0.0.0" else "127.0.0.1")
    control = f"{settings.host if settings.host != '0.0.0.0' else '127.0.0.1'}:{settings.port}" if settings.port else ""
    grpc_port, rest_port = settings.serving.door_grpc_port, settings.serving.door_rest_port
    keeper = Keeper(home, settings.serving.orphan_seconds)
    door_process = DoorProcess(keeper, table, settings.host, grpc_port, rest_port, control)
    door = Door(reachable_at(settings.host), grpc_port, rest_port, lambda: door_process.is_kept_out)
    budget = settings.serving.memory_budget_bytes
    world = World(
        files=DeploymentFiles(CachedModelFiles(objects, settings.cache), CachedSources(objects, settings.cache), home),
        environments=ModelEnvironments(settings.cache),
        servers=ModelServers(keeper, settings.host, home, settings.serving.load_seconds, budget),
        logs=logs,
        doors=ServerFiles(keys, spools),
        table=table,
        host=reachable_at(settings.host),
        crowd=Crowd(budget, settings.serving.least_awake_seconds),
    )

    def decide(context: Context) -> Worker:
        # One at a time: deployments of an endpoint are decided upon in the order in which they were asked for.
        return Worker(DEPLOY, Deploying(context.caught_up, context.store), parallel=1)

    return (
        Service("serving", settings)
        .listens(TOPIC, MODELS, to=ServingHandler())
        .serves("trainyard.endpoint.v1.EndpointService", api.endpoints(logs, keys, certificates, door))
        .works(decide)
        .beside(lambda context: Supervisor(context.engine, context.store, world).run())
        .beside(lambda context: RequestLog(spools, KafkaPublisher(settings.kafka_bootstrap), context.store).run())
        .beside(lambda _: door_process.run())
        .leaves(keeper.leave)
        .run()
    )


if __name__ == "__main__":
    sys.exit(main())
