"""Endpoints: a model version behind gRPC and REST."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trainyard._errors import WebserviceException, from_failure
from trainyard._progress import Printer
from trainyard._services_of import checked_name, checked_workspace, clients_of

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_STATES = {"TRANSITIONING": "Transitioning", "HEALTHY": "Healthy", "UNHEALTHY": "Unhealthy", "FAILED": "Failed", "DELETED": "Deleted"}
_POLL_SECONDS = 0.2


class Webservice:
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
    def list(workspace: Workspace) -> list[Webservice]:
        """Every endpoint, by name."""
        from trainyard.endpoint.v1 import endpoint_pb2

        clients = clients_of(workspace)
        answer = clients.call(clients.endpoints.ListEndpoints, endpoint_pb2.ListEndpointsRequest(), WebserviceException)
        return [Webservice._from_message(workspace, message) for message in answer.endpoints]

    def _fetch(self) -> Any:
        from trainyard.endpoint.v1 import endpoint_pb2

        clients = clients_of(self.workspace)
        return clients.call(
            clients.endpoints.GetEndpoint, endpoint_pb2.GetEndpointRequest(endpoint=self.name), WebserviceException
        ).endpoint

    def update_deployment_state(self) -> None:
        """Asks the serving service again. Raises WebserviceException where the endpoint is gone."""
        self._message = self._fetch()

    @property
    def state(self) -> str:
        """As last asked for: "Transitioning", "Healthy", "Unhealthy", "Failed" or "Deleted"."""
        from trainyard.endpoint.v1 import endpoint_pb2

        return _STATES.get(endpoint_pb2.EndpointState.Name(self._message.state).removeprefix("ENDPOINT_STATE_"), "Transitioning")

    @property
    def error(self) -> dict[str, Any] | None:
        """Why its latest deployment failed: code, message, target and details (the server's last lines); None where it did not."""
        return self._failure().serialize()["error"] if self._message.HasField("failure") else None

    @property
    def scoring_uri(self) -> str:
        """REST address, ends in ":predict"; empty while nothing answers."""
        return str(self._message.scoring_uri)

    @property
    def grpc_address(self) -> str:
        """host:port of tensorflow.serving.PredictionService; empty while nothing answers."""
        return str(self._message.grpc_address)

    @property
    def model_id(self) -> str:
        """`name:version` of the model of its latest deployment."""
        return f"{self._message.model}:{self._message.version}"

    def wait_for_deployment(self, show_output: bool = False, timeout_sec: float = 1800.0) -> None:
        """Returns when it answers. timeout_sec: seconds.

        Raises WebserviceException with the reason when it cannot go live, when the time is up (code "DeploymentTimedOut"), and when a
        later deployment took this one's place (code "Superseded").
        """
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

    def _failure(self) -> WebserviceException:
        if not self._message.HasField("failure"):
            return WebserviceException(
                f"Endpoint {self.name!r} is {self.state.lower()}: {self._message.why}", code=self.state, target=self.name
            )
        error = from_failure(self._message.failure, WebserviceException, fixed=True)
        assert isinstance(error, WebserviceException)
        return error

    def run(self, input_data: bytes | str | Mapping[str, Any]) -> Any:
        """POST to scoring_uri, e.g. {"instances": [[...], ...]} with one entry an example; gives the answer's JSON, {"predictions": [...]}.

        Raises WebserviceException where it is not live, does not answer within 60 s, or answers with an error (code "ScoringFailed").
        """
        import httpx

        from trainyard._inference import MOVED

        body = input_data if isinstance(input_data, bytes | str) else json.dumps(input_data, default=_plain)
        self._must_be_live()
        try:
            answer = httpx.post(self.scoring_uri, content=body, headers={"content-type": "application/json"}, timeout=60.0)
        except httpx.HTTPError as error:
            raise WebserviceException(
                f"{self.scoring_uri} did not answer: {error}", code="Unavailable", target=self.scoring_uri, hint=MOVED
            ) from error
        if answer.status_code != 200:
            raise WebserviceException(
                f"{self.scoring_uri} answered {answer.status_code}: {answer.text[:3000]}", code="ScoringFailed", target=self.scoring_uri
            )
        return answer.json()

    def predict(self, inputs: Mapping[str, Any], signature_name: str = "serving_default", timeout: float = 60.0) -> dict[str, Any]:
        """tensorflow.serving.PredictionService.Predict: input name -> array or nested lists, output name -> array (lists where numpy is missing).

        The first axis counts examples. timeout: seconds. Raises WebserviceException where it is not live, for ragged lists, and for
        what the server refuses.
        """
        from trainyard._inference import predict

        if not isinstance(inputs, Mapping):
            raise WebserviceException(
                f"inputs is a dict, not {inputs!r:.200}.", code="UserError", target="inputs", hint="write {'name of the input': values}"
            )
        self._must_be_live()
        # The server knows the model by the name in its REST path: /v1/models/<name>:predict
        served_as = urlsplit(self.scoring_uri).path.rpartition("/models/")[2].partition(":")[0].partition("/")[0]
        return predict(self.grpc_address, served_as, inputs, signature_name, timeout)

    def _must_be_live(self) -> None:
        if not self.scoring_uri:
            self.update_deployment_state()
        if not self.scoring_uri:
            raise WebserviceException(
                f"Endpoint {self.name!r} is not live: {self.state}. {self._message.why}",
                target=self.name,
                hint="call wait_for_deployment() first",
            )

    def get_logs(self, num_lines: int = 5000) -> str:
        """The last lines of its server process. Raises WebserviceException where there is no such endpoint."""
        from trainyard.endpoint.v1 import endpoint_pb2

        if not isinstance(num_lines, int) or not 0 <= num_lines < 1 << 31:
            raise WebserviceException(f"num_lines is a whole number from 0, not {num_lines!r}.", code="UserError", target="num_lines")
        clients = self.workspace._clients
        request = endpoint_pb2.GetEndpointLogsRequest(endpoint=self.name, last_lines=num_lines)
        return "\n".join(clients.call(clients.endpoints.GetEndpointLogs, request, WebserviceException).lines)

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
