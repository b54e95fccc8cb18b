"""The dataset service: named, versioned lists of URLs. It reads what users point it to, so it holds no object-store keys."""

import sys

from services.chassis.service import Service
from services.chassis.settings import Settings
from services.chassis.worker import Worker
from services.dataset import api
from services.dataset.adapters.http_sources import HttpSources
from services.dataset.handlers import TOPIC, DatasetHandler
from services.dataset.probing import Probing
from services.dataset.shelf import PROBE


def main() -> int:
    settings = Settings.load("dataset")
    return (
        Service("dataset", settings)
        .listens(TOPIC, to=DatasetHandler())
        .serves("trainyard.dataset.v1.DatasetService", api.datasets)
        .works(lambda _: Worker(PROBE, Probing(HttpSources()), parallel=64))
        .run()
    )


if __name__ == "__main__":
    sys.exit(main())
