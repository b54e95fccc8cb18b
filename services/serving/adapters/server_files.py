"""What servers read of their endpoint's settings while they run."""

from __future__ import annotations

from dataclasses import dataclass

from services.serving.adapters.endpoint_keys import EndpointKeys
from services.serving.adapters.sample_spools import SampleSpools
from services.serving.domain.endpoint import Endpoint


@dataclass(frozen=True)
class ServerFiles:
    keys: EndpointKeys
    spools: SampleSpools

    def keep(self, endpoint: Endpoint) -> None:
        """Who may call, and how many calls are sampled."""
        self.keys.keep(endpoint)
        self.spools.keep(endpoint)
