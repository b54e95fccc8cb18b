"""Our own definitions beside PyPI's stubs in one process: no name is taken twice, and no field has another number or type."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.local import assemble
from services.chassis import environments
from services.serving.adapters.server_environment import SERVER_PACKAGES
from tests.component.serving.conftest import LINES, REPO
from trainyard._environment_cache import default_cache

pytestmark = [pytest.mark.component, pytest.mark.timeout(400)]
# The client that fits each line, as in the tests of the clients.
_TRITON = dict(zip(LINES, ("2.51.0", "2.73.0"), strict=True))
# What theirs have and ours have not, and why. A binary message that has it is read all the same: unknown fields are passed over.
_LEFT_OUT = {
    r"inference\.Model(Config|Input|Output|InstanceGroup)\.": "the configuration of a Triton model is told and never taken; no model here has that",
    r"inference\.ModelStatistics\.(memory_usage|response_stats)": "of models that answer many times, and of accelerators",
    r"tensorflow\.TensorProto\.(resource_handle|variant)_val": "they mean nothing outside of a process",
    r"tensorflow\.TensorProto\.float8_val": "types that are not served",
    r"tensorflow\.Tensor(Proto|Info)\.dtype=DT_(\w+_REF|FLOAT[48]_\w+|U?INT[24])": "references, and types that are not served",
    r"tensorflow\.TensorInfo\.CompositeTensor\.type_spec": "metadata is TensorFlow's own bytes, handed on",
    r"tensorflow\.serving\.FileSystemStoragePathSourceConfig\.": "only its policy of versions is part of a list of models",
    r"tensorflow\.serving\.ReloadConfig(Request\.metric_names|Response\.metric)": "counters of Google's own servers",
    r"tensorflow\.serving\.PredictRequest\.(client_id|predict_streamed_options|request_options)": "of models that answer piece by piece",
    r"tensorflow\.serving\.PredictionLog\.": "who logged it has no effect; what is neither answered nor replayed",
    r"tensorflow\.serving\.StatusProto\.error_code=DO_NOT_USE": "as it says",
}
# No stubs of these are in the packages: they are read from files only.
_OF_FILES = {"BatchingParameters", "MonitoringConfig", "PrometheusConfig", "SSLConfig"}


@pytest.fixture(scope="module", params=LINES)
def looked_at(request: pytest.FixtureRequest) -> Any:
    """The newest line has TensorFlow Serving's stubs too; they need a newer protobuf than 2.15 has."""
    definition = environments.definition(
        "tensorflow", request.param, [f"tritonclient[grpc]=={_TRITON[request.param]}"], extra=SERVER_PACKAGES
    )
    python = environments.build(definition, default_cache(), print).python
    path = [str(REPO)]
    if request.param == LINES[-1]:
        path += map(str, assemble.tools("serving-api").glob("lib/python*/site-packages"))
    script, environment = Path(__file__).with_name("look_at_messages.py"), {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run([python, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"is newest": request.param == LINES[-1]}


def test_no_field_has_another_number_or_type_than_pypis(looked_at: Any) -> None:
    assert looked_at["different"] == []
    assert looked_at["compared"] >= 60
    assert looked_at["missing"]
    for field in looked_at["missing"]:
        assert any(re.match(pattern, field) for pattern in _LEFT_OUT), f"{field} is neither here nor left out for a reason"


def test_what_is_left_out_is_there_to_be_left_out(looked_at: Any) -> None:
    if looked_at["is newest"]:
        assert {name.rpartition(".")[2] for name in looked_at["not theirs"]} == _OF_FILES
        for pattern in _LEFT_OUT:
            assert any(re.match(pattern, field) for field in looked_at["missing"]), f"{pattern} is in ours, or in theirs no more"


def test_messages_go_there_and_back(looked_at: Any) -> None:
    expected = {"ModelInferRequest": True, "TensorProto": True} | ({"PredictRequest": True} if looked_at["is newest"] else {})

    assert looked_at["sent"] == looked_at["sent by the first"] == expected
    assert (looked_at["stubs"] >= 15) == looked_at["is newest"]
