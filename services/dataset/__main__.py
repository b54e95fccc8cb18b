"""The dataset service: named, versioned lists of files. It reads what users point it to, so its keys of the object store list datastores,
write lists of files, and do nothing else."""

import sys

from services.chassis.service import Service
from services.chassis.settings import Settings
from services.chassis.worker import Worker
from services.dataset import api
from services.dataset.adapters.datastore_sources import StoredOrOther
from services.dataset.adapters.http_sources import HttpSources
from services.dataset.handlers import TOPIC, DatasetHandler
from services.dataset.probing import Probing
from services.dataset.shelf import PROBE, versions
from trainyard._objects import MinioObjects


def main() -> int:
    settings = Settings.load("dataset")
    store = settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)
    return (
        Service("dataset", settings)
        .listens(TOPIC, to=DatasetHandler())
        .serves("trainyard.dataset.v1.DatasetService", api.datasets)
        .works(lambda context: Worker(PROBE, Probing(StoredOrOther(objects, HttpSources()), objects, versions(context.store)), parallel=64))
        .run()
    )


if __name__ == "__main__":
    sys.exit(main())
