"""Endpoints by the names that Azure's code knows kinds of them by: here all are processes of this platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard._deployment_configuration import DeploymentConfiguration, rate_of, refuse_secrets, warn_of
from trainyard._webservice import Webservice


class AciWebservice(Webservice):
    """An endpoint under the name that Azure's code knows it by."""

    @staticmethod
    def deploy_configuration(
        cpu_cores: float | None = None,
        memory_gb: float | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        location: str | None = None,
        auth_enabled: bool | None = None,
        token_auth_enabled: bool | None = None,
        idle_seconds: int | None = None,
        collect_model_data: bool | None = None,
        sample_rate: float | None = None,
        ssl_enabled: bool | None = None,
        ssl_cert_pem_file: str | None = None,
        ssl_key_pem_file: str | None = None,
        ssl_cname: str | None = None,
        **others: Any,
    ) -> DeploymentConfiguration:
        """What Model.deploy takes as deployment_config. cpu_cores bound the threads that compute, memory_gb (GiB) ends a server that takes
        more; without them there is no bound. auth_enabled: callers must send a key. idle_seconds: without a call for so long the server ends,
        and the next call through the door starts it. sample_rate: the part of its calls, 0 to 1, that is kept with request and answer on
        trainyard.inference, for `trainyard endpoint replay`; collect_model_data=True alone keeps all of them. ssl_enabled: its own addresses
        speak TLS, by the certificate and key in those PEM files; ssl_cname, a name that the certificate is for, is their host.

        Options that would promise chosen keys raise UserErrorException; those of Azure's cloud have no effect, and say so.
        """
        refuse_secrets(others)
        warn_of({"location": location, **others})
        rate, tls = rate_of(collect_model_data, sample_rate), (ssl_enabled, ssl_cert_pem_file, ssl_key_pem_file, ssl_cname)
        return DeploymentConfiguration(
            cpu_cores, memory_gb, auth_enabled, token_auth_enabled, tags, properties, description, idle_seconds, rate, *tls
        )


class LocalWebservice(Webservice):
    """An endpoint under the name of Azure's local deployments: here all are local."""

    @staticmethod
    def deploy_configuration(port: int | None = None) -> DeploymentConfiguration:
        """What Model.deploy takes as deployment_config. The platform chooses the port: scoring_uri has it."""
        warn_of({"port": port})
        return DeploymentConfiguration()

    def reload(self, wait: bool = False) -> None:
        """The same models and code in a new server, which takes over once it answers."""
        self.update_deployment_state()
        self.update(deployment_config=DeploymentConfiguration(anew=True), wait=wait)
