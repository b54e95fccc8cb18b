"""The model server's calls on their way to the request log, on the oldest and the newest line of TensorFlow; and the log with a broker that
is not there."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import grpc
import httpx
import pytest

from services.chassis.loop.kafka_client import KafkaPublisher
from services.chassis.records import Unavailable
from services.chassis.store import Store
from services.serving.adapters.sample_spools import SampleSpools, spool_folder
from services.serving.domain.endpoint import Deployment, Endpoint
from services.serving.request_log import RequestLog
from services.serving.sampling import spool
from services.serving.sampling.call import SCRIPT, Body, Call, to_bytes
from services.serving.sampling.sampler import ABOUT
from services.serving.sampling.spool import Spool
from tests.component.serving.calls import a_name
from tests.component.serving.conftest import WIRE, TensorFlow, predict_request, running, tensor
from tests.component.serving.spools import samples
from tests.component.topic_log import TopicLog
from tests.conftest import free_port

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]


def test_calls_and_their_errors_are_kept_by_both_lines(tensorflow: TensorFlow, tmp_path: Path) -> None:
    (tmp_path / ABOUT).write_text(json.dumps({"rate": 1}))
    with running(tensorflow.python, tensorflow.models / "half" / "model", f"--samples={tmp_path}") as server:
        answer = server.predict(x=tensor(1, [1], float_val=[1.0]))
        with pytest.raises(grpc.RpcError):
            server.ask(predict_request({}, signature="nowhere"))
        httpx.post(f"{server.rest}/v1/models/half:predict", json={"instances": [1.0]}).raise_for_status()
        assert httpx.post(f"{server.rest}/v1/models/lost:predict", json={"instances": [1.0]}).status_code == 404
        httpx.get(f"{server.rest}/v1/models/half").raise_for_status()
        with grpc.insecure_channel(server.grpc_address) as channel:
            list(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", bytes, bytes)(iter([b"\xff"]), timeout=30))
        assert "trainyard_serving_samples_total" in httpx.get(f"{server.rest}/metrics").text
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0

    rpc, failed, rest, lost, streamed = samples(tmp_path)
    assert WIRE.PredictResponse.FromString(rpc.response.content) == answer
    assert (failed.status, failed.response.content) == (
        grpc.StatusCode.FAILED_PRECONDITION.value[0],
        b'Serving signature key "nowhere" not found.',
    )
    assert (rest.status, json.loads(rest.response.content)) == (200, {"predictions": [2.5]})
    assert (lost.path, lost.status) == ("/v1/models/lost:predict", 404)
    assert (streamed.method, streamed.status) == ("/inference.GRPCInferenceService/ModelInfer", 3)


def test_with_a_broker_that_is_not_there_samples_stay_and_come_once_it_is(
    tmp_path: Path, kafka_bootstrap: str, topic_log: TopicLog
) -> None:
    name, store = a_name("away"), Store("sqlite://")
    spools = SampleSpools(tmp_path)
    spools.keep(Endpoint(name, Deployment(1, "half", 1, "s1")))
    folder = spool_folder(tmp_path, name, 1)
    writing = Spool(folder)
    for number in range(3):
        content = Body(b"%d" % number)
        writing.append(to_bytes(Call(SCRIPT, "POST", "/score", 200, time.time_ns(), 1, content, content)))
    writing.close()

    with pytest.raises(Unavailable):
        RequestLog(spools, KafkaPublisher(f"127.0.0.1:{free_port()}", timeout_seconds=1.0), store).publish()
    there = len(spool.closed(folder))
    publisher = KafkaPublisher(kafka_bootstrap)
    RequestLog(spools, publisher, store).publish()
    publisher.close()

    assert there == 1
    events = [it for it in topic_log.events("trainyard.inference") if it.key == name]
    assert sorted(it.message.request.content for it in events) == [b"0", b"1", b"2"]  # type: ignore[attr-defined]
