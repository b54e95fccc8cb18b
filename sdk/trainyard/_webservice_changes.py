"""What may be changed of an endpoint: what it serves, how its calls are split, and how people know it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._deployment_configuration import DeploymentConfiguration, rate_of
from trainyard._errors import WebserviceException
from trainyard._model_find import texts
from trainyard._progress import Printer
from trainyard._webservice_facts import WebserviceFacts

if TYPE_CHECKING:
    from trainyard._inference_config import InferenceConfig
    from trainyard._model import Model

_POLL_SECONDS = 0.2
_SECOND_SECONDS = 1800.0


class WebserviceChanges(WebserviceFacts):
    """Each asks the serving service, and shows the endpoint as it stands then."""

    def wait_for_deployment(self, show_output: bool = False, timeout_sec: float | None = None) -> None:
        """Returns when it answers. timeout_sec: seconds; None: half an hour.

        Raises WebserviceException with the reason when it cannot go live, when the time is up (code "DeploymentTimedOut"), and when a
        later deployment took this one's place (code "Superseded").
        """
        timeout_sec = 1800.0 if timeout_sec is None else timeout_sec
        printer, deployment, deadline = Printer(), self._message.deployment, time.monotonic() + timeout_sec
        last: tuple[str, str] | None = None
        while True:
            self.update_deployment_state()
            if show_output and (self.state, self._message.why) != last:
                last = (self.state, self._message.why)
                printer.line(f"{self.state}: {self._message.why}" if self._message.why else self.state, "phase")
            if self._message.deployment > deployment:
                raise WebserviceException(
                    f"Another deployment of {self.name!r} took this one's place.", code="Superseded", target=self.name
                )
            if self.state == "Healthy":
                break
            if self.state in ("Failed", "Deleted"):
                raise self._failure()
            if time.monotonic() >= deadline:
                raise WebserviceException(
                    f"{self.name!r} was not live after {timeout_sec:.0f} s: {self._message.why}",
                    code="DeploymentTimedOut",
                    target=self.name,
                )
            time.sleep(_POLL_SECONDS)
        if show_output:
            printer.line(f"Service {self.name} is live: {self.scoring_uri}, gRPC {self.grpc_address}", "good")

    def update(
        self,
        models: Sequence[Model | str] | None = None,
        inference_config: InferenceConfig | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        auth_enabled: bool | None = None,
        token_auth_enabled: bool | None = None,
        cpu_cores: float | None = None,
        memory_gb: float | None = None,
        idle_seconds: int | None = None,
        collect_model_data: bool | None = None,
        sample_rate: float | None = None,
        ssl_enabled: bool | None = None,
        ssl_cert_pem_file: str | None = None,
        ssl_key_pem_file: str | None = None,
        ssl_cname: str | None = None,
        deployment_config: DeploymentConfiguration | None = None,
        wait: bool = False,
        **others: Any,
    ) -> None:
        """What is given is changed, all else stays. Other models, code, cores, memory, idle_seconds or TLS are a new deployment, which takes over without
        a dropped request once it answers: wait_for_deployment follows. With or without TLS its addresses are others. All else holds at once.

        models: Model, "name:version" or "name@alias", all that it is to serve. sample_rate and collect_model_data: as deploy_configuration
        has them. tags replace those that are there; properties are added.
        Raises WebserviceException for what cannot be, UserErrorException for options that mean nothing here.
        """
        from trainyard._deploying import update

        self._message = update(
            self,
            models,
            inference_config,
            DeploymentConfiguration.of(
                deployment_config,
                cpu_cores,
                memory_gb,
                auth_enabled,
                token_auth_enabled,
                tags,
                properties,
                description,
                idle_seconds,
                rate_of(collect_model_data, sample_rate),
                ssl_enabled,
                ssl_cert_pem_file,
                ssl_key_pem_file,
                ssl_cname,
            ),
            others,
        )
        if wait:
            self.wait_for_deployment()

    def roll_back(self, deployment: int | None = None) -> None:
        """Deploys again what was live before, or the deployment of that number; rolled back twice it goes back by two.

        Raises WebserviceException (code "NothingToRollBack") with the deployments that were live.
        """
        from trainyard._deploying import roll_back

        self._message = roll_back(self, deployment)

    def split_traffic(
        self, percent: float, version: int | None = None, sticky_by: str | None = None, shadow: bool = False, wait: bool = True
    ) -> None:
        """So many percent of the calls that come through the door go to another version of its model, once that answers beside this one.

        version: None keeps the one that is there. sticky_by: a header; calls with the same value go to the same version. shadow: calls that
        go to this one are copied to the other, whose answers nobody sees. percent 0 without shadow ends it, as the next deployment does.
        Raises WebserviceException: where nothing answers yet, there is no such version, or the other cannot go live.
        """
        from trainyard._deploying import split

        self._message = split(self, version, percent, sticky_by, shadow)
        if wait:
            self._wait_for_second()

    def _wait_for_second(self) -> None:
        number, deadline = self._message.beside.deployment, time.monotonic() + _SECOND_SECONDS
        while number and not self._message.beside_is_up:
            if time.monotonic() >= deadline:
                raise WebserviceException(
                    f"Deployment {number} of {self.name!r} did not answer in time.", code="DeploymentTimedOut", target=self.name
                )
            time.sleep(_POLL_SECONDS)
            self.update_deployment_state()
            if self._message.beside.deployment != number:
                raise WebserviceException(
                    f"Deployment {number} does not stand beside {self.name!r} any more. {self._message.why}",
                    code="Failed",
                    target=self.name,
                )

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Beside those that are there; one of the same name gets the new value."""
        self.update_deployment_state()
        self.update(tags={**self.tags, **texts(tags)})

    def remove_tags(self, tags: Sequence[str]) -> None:
        """Those of these names; one that is not there is no error."""
        self.update_deployment_state()
        gone = {tags} if isinstance(tags, str) else set(tags)
        self.update(tags={name: value for name, value in self.tags.items() if name not in gone})

    def add_properties(self, properties: Mapping[str, str]) -> None:
        """Properties never change: raises WebserviceException for one that is there with another value."""
        self.update(properties=properties)
