"""The clients that Triton's and KServe's users have, from the package index and unmodified, each in an environment of its own."""

from __future__ import annotations

import ctypes.util
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from services.chassis import environments
from tests.component.serving.conftest import Running, TensorFlow
from trainyard._environment_cache import default_cache

pytestmark = [pytest.mark.component, pytest.mark.timeout(400)]
_HERE = Path(__file__).parent
# The last one for protobuf 4, and the newest.
_OLD, _NEW = "2.51.0", "2.73.0"
# The last wheel with a perf_analyzer for this age of C libraries is the old one; it is linked against this one too.
_PERF_PACKAGES = (f"tritonclient[grpc,http]=={_OLD}", "nvidia-cuda-runtime-cu12==12.9.79")
_PERF_LIBRARY = "b64"
_TENSOR = {"name": "x", "datatype": "FP32", "shape": ["-1"]}


def python_with(*packages: str) -> Path:
    return environments.build(environments.definition("none", "", packages), default_cache(), print).python


def told_by(python: Path, script: str, *arguments: str) -> Any:
    """Nothing of ours is on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, _HERE / script, *arguments], capture_output=True, text=True, cwd="/", env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def triton(server: Running, tensorflow: TensorFlow) -> Any:
    """The old client speaks to the old line of TensorFlow and the new one to the new, as in the environments that they fit."""
    python = python_with(f"tritonclient[grpc,http]=={_NEW}") if tensorflow.is_newest else python_with(*_PERF_PACKAGES)
    return told_by(python, "client_triton.py", server.grpc_address, server.rest.removeprefix("http://"))


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_triton_clients_learn_what_is_served(triton: Any, way: str) -> None:
    about = triton[way]["about"]

    assert about["live"]
    assert about["ready"]
    assert about["model ready"] == [True, True, False, False]
    assert {"binary_tensor_data", "statistics", "model_repository", "model_configuration"} <= set(about["server"]["extensions"])
    assert (about["model"]["name"], about["model"]["versions"]) == ("half", ["3"])
    assert about["model"]["platform"] == "tensorflow_savedmodel"
    (tensor,) = about["model"]["inputs"]
    assert (tensor["name"], tensor["datatype"], [int(size) for size in tensor["shape"]]) == ("x", "FP32", [-1])
    config = about["config"].get("config", about["config"])
    assert [(it["name"], it["data_type"]) for it in config["input"]] == [("x", "TYPE_FP32")]
    (entry,) = about["index"]["models"] if way == "grpc" else about["index"]
    assert (entry["name"], entry["version"], entry["state"]) == ("half", "3", "READY")


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_triton_clients_infer(triton: Any, way: str) -> None:
    inferred = triton[way]["inferred"]

    assert inferred["y"] == [2.5, 4.0]
    assert (inferred["id"], inferred["version"]) == ("42", "3")
    assert inferred["tagged"] == {"names": ["twice", "text"], "twice": [2, 1 << 41], "text": ["a1", "\xff\x001099511627776"]}
    assert all(inferred["kinds"].values()), inferred["kinds"]
    assert len(inferred["kinds"]) == 11


@pytest.mark.parametrize("way", ["grpc", "http"])
def test_triton_clients_pack_bodies_both_ways(triton: Any, way: str) -> None:
    assert triton[way]["packed"] == {"gzip": True, "deflate": True}


@pytest.mark.parametrize(
    ("case", "code", "status", "text"),
    [
        ("model", "NOT_FOUND", "404", "Request for unknown model: 'none' is not found"),
        ("version", "NOT_FOUND", "404", "Request for unknown model: 'half' version 9 is not found"),
        ("input", "INVALID_ARGUMENT", "400", "unexpected inference input 'z' for model 'half'"),
        ("datatype", "INVALID_ARGUMENT", "400", "inference input 'x' data-type is 'INT32', but model 'half' expects 'FP32'"),
        ("shape", "INVALID_ARGUMENT", "400", "unexpected shape for input 'x' for model 'half'. Expected [-1], got [1,1]"),
        ("output", "INVALID_ARGUMENT", "400", "unexpected inference output 'q' for model 'half'"),
        ("graph", "INVALID_ARGUMENT", "400", "only positive numbers"),
        ("shared memory", "UNIMPLEMENTED", "501", ""),
        ("load", "NOT_FOUND", "404", "failed to load 'none'"),
    ],
)
def test_triton_clients_are_told_what_is_wrong(triton: Any, case: str, code: str, status: str, text: str) -> None:
    by_grpc, by_http = triton["grpc"]["errors"][case], triton["http"]["errors"][case]

    assert by_grpc[0] == f"StatusCode.{code}"
    assert by_http[0] == status
    if case != "shared memory":  # gRPC itself answers for methods that are not there
        assert text in by_grpc[1]
    assert text in by_http[1]


def test_triton_clients_see_what_was_counted(triton: Any) -> None:
    for way in ("grpc", "http"):
        (found,) = triton[way]["statistics"]["model_stats"]
        assert (found["name"], found["version"]) == ("half", "3")
        assert int(found["inference_count"]) >= 4000, "rows, not calls"
        assert int(found["inference_stats"]["success"]["count"]) >= 5
        assert int(found["inference_stats"]["fail"]["count"]) >= 1
        assert int(found["inference_stats"]["compute_infer"]["ns"]) > 0
        assert [int(it["batch_size"]) for it in found["batch_stats"]].count(2000) == 1


def test_triton_clients_send_json(triton: Any) -> None:
    assert triton["as json"] == [2.5, 4.0]


def test_triton_clients_stream_and_call_back(triton: Any) -> None:
    assert triton["streamed"][:3] == [["1.0", [2.5]], ["2.0", [3.0]], ["3.0", [3.5]]]
    assert "Request for unknown model: 'none' is not found" in triton["streamed"][3]
    assert triton["in background"] == [2.5, 4.0]


@pytest.mark.parametrize("way", ["grpc.aio", "http.aio"])
def test_triton_clients_of_asyncio(triton: Any, way: str) -> None:
    assert triton[way] == {"live": True, "all right": True}


@pytest.fixture(scope="module")
def kserve(server: Running) -> Any:
    return told_by(python_with("kserve==0.21.0"), "client_kserve.py", server.grpc_address, server.rest)


@pytest.mark.parametrize("way", ["grpc", "rest"])
def test_kserves_clients(kserve: Any, way: str) -> None:
    told = kserve[way]
    answer = ["half", "42", "y", "FP32", [2]]

    assert told["live"]
    assert told["ready"]
    assert told["model ready"] == [True, False]
    assert told["raw"] == [*answer, [2.5, 4.0]]
    assert told["typed"] == [*answer, [2.5, 4.0]]
    assert told["signature"] == [*answer, [1.0, 4.0]]
    assert "Request for unknown model: 'none' is not found" in told["refused"]


@pytest.mark.parametrize(
    ("way", "kind"),
    [("grpc", []), ("http", []), ("grpc", ["--service-kind", "tfserving", "--model-signature-name", "serving_default"])],
    ids=["v2 grpc", "v2 http", "tensorflow serving"],
)
def test_perf_analyzer_measures(server: Running, way: str, kind: list[str]) -> None:
    if ctypes.util.find_library(_PERF_LIBRARY) is None:
        pytest.skip("perf_analyzer is linked against libb64, which is not here (Debian's libb64-0d)")
    python = python_with(*_PERF_PACKAGES)
    (libraries,) = python.parent.parent.glob("lib/python3*/site-packages/nvidia/cuda_runtime/lib")
    address = server.grpc_address if way == "grpc" else server.rest.removeprefix("http://")
    windows = ["--measurement-mode", "count_windows", "--measurement-request-count", "50", "--stability-percentage", "999"]

    done = subprocess.run(
        [python.with_name("perf_analyzer"), "-m", "half", *kind, "-i", way, "-u", address, "--shape", "x:2", *windows],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(libraries)},
    )

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    measured = re.search(r"Throughput: ([\d.]+) infer/sec", said)
    assert measured, said
    assert float(measured[1]) > 0
    assert re.search(r"Request count: [1-9]" if kind else r"Inference count: [1-9]", said), said
