"""Endpoints: a model version behind gRPC and REST."""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainyard._endpoint_access import AccessToken
from trainyard._endpoint_waking import wake
from trainyard._errors import WebserviceException
from trainyard._model_find import Tags, has
from trainyard._services_of import checked_name, checked_workspace, clients_of
from trainyard._webservice_changes import WebserviceChanges

if TYPE_CHECKING:
    from trainyard._deployment_configuration import DeploymentConfiguration
    from trainyard._inference_config import InferenceConfig
    from trainyard._model import Model
    from trainyard._workspace import Workspace

_CALL_SECONDS = 90.0  # one that sleeps is started first


class Webservice(WebserviceChanges):
    """`Webservice(workspace, name)` is the endpoint of that name; raises WebserviceException when there is none.

    Attributes: workspace, name.
    """

    def __init__(self, workspace: Workspace, name: str, *, _message: Any = None) -> None:
        self.workspace: Workspace = checked_workspace(workspace)
        self.name = checked_name("name", name)
        self._message = _message if _message is not None else self._fetch()
        if _message is None and self.state == "Deleted":
            raise WebserviceException(f"There is no endpoint {name!r}: it was deleted.", code="EndpointNotFound", target=name)

    def __repr__(self) -> str:
        return f"Webservice(name={self.name!r}, state={self.state!r}, scoring_uri={self.scoring_uri!r})"

    @classmethod
    def _from_message(cls, workspace: Workspace, message: Any) -> Webservice:
        return cls(workspace, message.endpoint, _message=message)

    @staticmethod
    def list(
        workspace: Workspace,
        compute_type: str | None = None,
        image_name: str | None = None,
        image_id: str | None = None,
        model_name: str | None = None,
        model_id: str | None = None,
        tags: Tags | None = None,
        properties: Tags | None = None,
        image_digest: str | None = None,
    ) -> builtins.list[Webservice]:
        """Every endpoint, by name; those that serve the model (model_id: "name:version"), and have all tags and properties, where given.

        tags and properties: {"name": "value"}, ["name"] or [["name", "value"]]. compute_type changes nothing: there is one. No endpoint
        has an image.
        """
        from trainyard.endpoint.v1 import endpoint_pb2

        clients = clients_of(workspace)
        answer = clients.call(clients.endpoints.ListEndpoints, endpoint_pb2.ListEndpointsRequest(), WebserviceException)
        if image_name or image_id or image_digest:
            return []
        found = [Webservice._from_message(workspace, message) for message in answer.endpoints]
        return [
            it
            for it in found
            if (model_name is None or any(name.rpartition(":")[0] == model_name for name in it.model_ids))
            and (model_id is None or model_id in it.model_ids)
            and has(it.tags, tags)
            and has(it.properties, properties)
        ]

    @staticmethod
    def deploy_from_model(
        workspace: Workspace,
        name: str,
        models: Sequence[Model | str],
        image_config: InferenceConfig,
        deployment_config: DeploymentConfiguration | None = None,
        deployment_target: object = None,
        overwrite: bool = False,
    ) -> Webservice:
        """Model.deploy under its older name; image_config is what ContainerImage.image_configuration makes, or an InferenceConfig."""
        from trainyard._model import Model

        return Model.deploy(workspace, name, models, image_config, deployment_config, deployment_target, overwrite)

    @staticmethod
    def deploy_local_from_model(
        workspace: Workspace,
        name: str,
        models: Sequence[Model | str],
        image_config: InferenceConfig,
        deployment_config: DeploymentConfiguration | None = None,
        wait: bool = False,
    ) -> Webservice:
        """The same: here every endpoint is local. One that has the name is replaced, as Azure's local deployments are."""
        service = Webservice.deploy_from_model(workspace, name, models, image_config, deployment_config, overwrite=True)
        if wait:
            service.wait_for_deployment()
        return service

    def run(self, input_data: bytes | str | Mapping[str, Any] | builtins.list[Any]) -> Any:
        """POST to scoring_uri, e.g. {"instances": [[...], ...]} with one entry an example; gives the answer's JSON, {"predictions": [...]}.
        A key or token that the endpoint asks for is sent along.

        Raises WebserviceException where it is not live, does not answer within 90 s, or answers with an error (code "ScoringFailed").
        """
        import httpx

        from trainyard._endpoint_tls import trusting
        from trainyard._inference import MOVED

        body = input_data if isinstance(input_data, bytes | str) else json.dumps(input_data, default=_plain)
        self._must_be_live()
        headers = {"content-type": "application/json", **self._access.headers()}

        def post(uri: str) -> httpx.Response:
            return httpx.post(uri, content=body, headers=headers, timeout=_CALL_SECONDS, verify=trusting(self._certificate))

        try:
            try:
                answer = post(uri := self._rest_address)
            except httpx.ConnectError:
                if not self._fell_asleep():
                    raise
                answer = post(uri := self._rest_address)
        except httpx.HTTPError as error:
            raise WebserviceException(f"{uri} did not answer: {error}", code="Unavailable", target=uri, hint=MOVED) from error
        if answer.status_code != 200:
            raise WebserviceException(f"{uri} answered {answer.status_code}: {answer.text[:3000]}", code="ScoringFailed", target=uri)
        return answer.json()

    def predict(self, inputs: Mapping[str, Any], signature_name: str = "serving_default", timeout: float = 60.0) -> dict[str, Any]:
        """tensorflow.serving.PredictionService.Predict: input name -> array or nested lists, output name -> array (lists where numpy is missing).

        Raises WebserviceException where it is not live, has no such signature or input, and where a script answers: then call run().
        """
        from trainyard._inference import predict

        if not isinstance(inputs, Mapping):
            raise WebserviceException(
                f"inputs is a dict, not {inputs!r:.200}.", code="UserError", target="inputs", hint="write {'name of the input': values}"
            )
        self._must_be_live()
        address = self._grpc_address
        if not address:
            raise WebserviceException(f"A script answers for {self.name!r}, over REST alone.", code="UserError", hint="call run(data)")
        # The server knows the model by the name in its REST path: /v1/models/<name>:predict
        served_as = urlsplit(self.scoring_uri or self.door_scoring_uri).path.rpartition("/models/")[2].partition(":")[0].partition("/")[0]
        headers = {**self._access.headers(), "trainyard-endpoint": self.name}
        try:
            return predict(address, served_as, inputs, signature_name, timeout, headers, self._certificate)
        except WebserviceException as error:
            if error.code != "Unavailable" or address == self.door_grpc_address or not self._fell_asleep():
                raise
            return predict(self._grpc_address, served_as, inputs, signature_name, timeout, headers, self._certificate)

    def _fell_asleep(self) -> bool:
        """Since it was last looked at; then it can be called now, perhaps at another address."""
        self.update_deployment_state()
        if self.asleep:
            self._must_be_live()
            return True
        return False

    def _must_be_live(self) -> None:
        """One that sleeps and speaks TLS is woken: the door, which does so for the others, would take key and body in the clear."""
        if not self.scoring_uri:
            self.update_deployment_state()
        if self.asleep and self.ssl_enabled:
            wake(self)
        if not self._rest_address:
            raise WebserviceException(
                f"Endpoint {self.name!r} is not live: {self.state}. {self._message.why}",
                target=self.name,
                hint="call wait_for_deployment() first",
            )

    def get_logs(self, num_lines: int = 5000, init: bool = False) -> str:
        """The last lines of its server process, init()'s among them. Raises WebserviceException where there is no such endpoint."""
        from trainyard.endpoint.v1 import endpoint_pb2

        if not isinstance(num_lines, int) or not 0 <= num_lines < 1 << 31:
            raise WebserviceException(f"num_lines is a whole number from 0, not {num_lines!r}.", code="UserError", target="num_lines")
        clients = self.workspace._clients
        request = endpoint_pb2.GetEndpointLogsRequest(endpoint=self.name, last_lines=num_lines)
        return "\n".join(clients.call(clients.endpoints.GetEndpointLogs, request, WebserviceException).lines)

    # -- who may call

    def get_keys(self) -> tuple[str, str]:
        """Its primary and secondary key, either of which opens it. Raises WebserviceException where it asks for none."""
        return self._access.keys()

    def regen_key(self, key: str, set_key: str | None = None) -> None:
        """Makes a key anew, "Primary" or "Secondary": the old one opens nothing once this returns. Callers lose nothing while they use the other.

        Raises WebserviceException for another name, and for set_key: the platform makes the keys.
        """
        self._access.regenerate(key, set_key)

    def get_token(self) -> tuple[str, datetime]:
        """A token, and when to ask for the next one (UTC). Raises WebserviceException where it asks for none."""
        token, refresh_after, _ = self._access.token()
        return token, refresh_after

    def get_access_token(self) -> AccessToken:
        """The same with its end: access_token, refresh_after, expiry_on, token_type."""
        return AccessToken(*self._access.token())

    @staticmethod
    def check_for_existing_webservice(workspace: Workspace, name: str, overwrite: bool = False) -> None:
        """Raises WebserviceException where an endpoint has the name already, unless it may be replaced."""
        if not overwrite and name in (it.name for it in Webservice.list(workspace)):
            raise WebserviceException(
                f"Endpoint {name!r} is there already.", code="AlreadyExists", target=name, hint="deploy with overwrite=True to replace it"
            )

    def delete(self) -> None:
        """Stops serving. Raises WebserviceException where there is no such endpoint."""
        from trainyard.endpoint.v1 import endpoint_pb2

        clients = self.workspace._clients
        clients.call(clients.endpoints.DeleteEndpoint, endpoint_pb2.DeleteEndpoint(endpoint=self.name), WebserviceException)


def _plain(value: Any) -> Any:
    """Arrays and scalars of any library, as JSON has them."""
    if not hasattr(value, "tolist"):
        raise WebserviceException(
            f"input_data has a {type(value).__name__}, for which JSON has no form.", code="UserError", target="input_data"
        )
    return value.tolist()
