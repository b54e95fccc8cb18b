"""The model server in other manners: batching, TLS with certificates of clients, raw answers, and command lines that make no sense."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.component.serving.certificates import Authority, Certificate
from tests.component.serving.conftest import REPO, WIRE, Running, TensorFlow, predict_request, serving, tensor

pytestmark = [pytest.mark.component, pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")]
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass
class Guarded:
    """A server with TLS on both doors that lets in whoever has a certificate of its authority, and batches."""

    server: Running
    authority: Path
    client: Certificate
    stranger: Certificate

    def channel(self, certificate: Certificate | None) -> grpc.Channel:
        own = (certificate.key.read_bytes(), certificate.certificate.read_bytes()) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes(), *own)
        return grpc.secure_channel(f"localhost:{self.server.ready['grpc_port']}", credentials)

    def http(self, certificate: Certificate | None) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.authority))
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return httpx.Client(base_url=f"https://localhost:{self.server.ready['rest_port']}", verify=context, timeout=30)

    def ask(self, channel: grpc.Channel, x: list[float], signature: str = "") -> Any:
        request = predict_request({"x": tensor(1, [len(x)], float_val=x)}, signature)
        answer = channel.unary_unary(_PREDICT, bytes, bytes)(request.SerializeToString(), timeout=30)
        return WIRE.PredictResponse.FromString(answer)


def _text(key: str, file: Path) -> str:
    escaped = file.read_text().replace("\n", "\\n")
    return f'{key}: "{escaped}"\n'


@pytest.fixture(scope="module")
def guarded(tensorflow: TensorFlow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(tensorflow.models / "half" / "model", folder / "half" / "1")
    ours, others = Authority(folder, "ours"), Authority(folder, "others")
    own = ours.signed("server")
    tls = folder / "ssl.config"
    tls.write_text(
        _text("server_key", own.key) + _text("server_cert", own.certificate) + _text("custom_ca", ours.certificate) + "client_verify: true"
    )
    batching = folder / "batching.config"
    batching.write_text(
        "max_batch_size { value: 64 } batch_timeout_micros { value: 20000 } num_batch_threads { value: 2 } "
        "max_enqueued_batches { value: 1000 }"
    )
    options = ["--model_name=half", f"--model_base_path={folder / 'half'}", f"--ssl_config_file={tls}", f"--rest_api_ssl_config_file={tls}"]
    options += ["--enable_batching", f"--batching_parameters_file={batching}", "--enable_serialization_as_tensor_content=true"]
    with serving(tensorflow.python, *options) as server:
        yield Guarded(server, ours.certificate, ours.signed("client"), others.signed("stranger"))


def test_whoever_has_a_certificate_is_let_in_and_nobody_else(guarded: Guarded) -> None:
    with guarded.channel(guarded.client) as channel, guarded.http(guarded.client) as http:
        assert guarded.ask(channel, [1.0]).model_spec.version.value == 1
        assert http.get("/readyz").status_code == 200
        assert http.post("/v1/models/half:predict", json={"instances": [1.0]}).json() == {"predictions": [2.5]}
    for certificate in (None, guarded.stranger):
        with guarded.channel(certificate) as channel, pytest.raises(grpc.RpcError) as caught:
            guarded.ask(channel, [1.0])
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        with guarded.http(certificate) as http, pytest.raises(httpx.HTTPError):
            http.get("/readyz")


def test_answers_are_raw_where_that_is_wanted(guarded: Guarded) -> None:
    with guarded.channel(guarded.client) as channel:
        answer = guarded.ask(channel, [1.0, 4.0]).outputs["y"]

    assert not answer.float_val
    assert np.frombuffer(answer.tensor_content, np.float32).tolist() == [2.5, 4.0]


def test_calls_share_runs_and_each_has_its_own_answer(guarded: Guarded) -> None:
    with guarded.channel(guarded.client) as channel, ThreadPoolExecutor(16) as pool, guarded.http(guarded.client) as http:
        before = _runs(http)
        calls = [[float(number)] * (1 + number % 3) for number in range(200)]
        answers = list(pool.map(lambda x: guarded.ask(channel, x), calls))
        runs = _runs(http) - before

    for x, answer in zip(calls, answers, strict=True):
        assert np.frombuffer(answer.outputs["y"].tensor_content, np.float32).tolist() == [it * 0.5 + 2.0 for it in x]
    assert 0 < runs < len(calls)


def _runs(http: httpx.Client) -> int:
    (line,) = [it for it in http.get("/metrics").text.splitlines() if it.startswith("trainyard_serving_runs_total{")]
    return int(line.rpartition(" ")[2])


def test_what_cannot_be_batched_is_refused_in_words(guarded: Guarded) -> None:
    with guarded.channel(guarded.client) as channel:
        for signature, text in [("total", "0th dimension does not equal"), ("positive", "only positive numbers")]:
            with pytest.raises(grpc.RpcError) as caught:
                guarded.ask(channel, [-1.0, 2.0], signature)
            assert text in (caught.value.details() or "")
        assert guarded.ask(channel, [1.0]).outputs["y"].tensor_content


def test_a_command_line_or_a_file_that_makes_no_sense_ends_with_2(tensorflow: TensorFlow, tmp_path: Path) -> None:
    def ends(*options: str) -> tuple[int, str]:
        command = [str(tensorflow.python), "-m", "services.serving.model_server", "--port=0", *options]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPO)})
        return done.returncode, done.stderr.splitlines()[-1]

    (tmp_path / "models.config").write_text("model_config_list { config { nome: 'x' } }")

    assert "exactly one of --model_config_file" in ends()[1]
    code, said = ends(f"--model_config_file={tmp_path / 'models.config'}")
    assert code == 2
    assert said.startswith("Error parsing text-format tensorflow.serving.ModelServerConfig: ")
    assert "nome" in said
