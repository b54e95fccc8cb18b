"""Run by the tests where tritonclient is installed: `python client_triton.py GRPC_ADDRESS REST_ADDRESS` prints as JSON what it was answered.

Nothing of this repository is imported: what a user of the package would write.
"""

import asyncio
import json
import queue
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

try:
    import ml_dtypes  # from 2.72 on BF16 is a type of its own
except ImportError:
    ml_dtypes = None

GRPC_ADDRESS, REST_ADDRESS = sys.argv[1:]
CLIENTS = {"grpc": (tritonclient.grpc, GRPC_ADDRESS), "http": (tritonclient.http, REST_ADDRESS)}
KINDS = {
    "float64": ("FP64", np.float64, 0.1),
    "int8": ("INT8", np.int8, -128),
    "int16": ("INT16", np.int16, -(1 << 15)),
    "int32": ("INT32", np.int32, -(1 << 31)),
    "uint8": ("UINT8", np.uint8, 255),
    "uint16": ("UINT16", np.uint16, 65535),
    "uint32": ("UINT32", np.uint32, (1 << 32) - 1),
    "uint64": ("UINT64", np.uint64, (1 << 64) - 1),
    "bool": ("BOOL", np.bool_, True),
    "half": ("FP16", np.float16, 0.5),
    "bfloat16": ("BF16", ml_dtypes.bfloat16 if ml_dtypes else np.float32, 1.5),
}


def an_input(module, name, datatype, array, **options):
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **options)
    return made


def half_inputs(module, *values, **options):
    return [an_input(module, "x", "FP32", np.array(values or (1.0, 4.0), np.float32), **options)]


def tags(module):
    return [
        an_input(module, "s", "BYTES", np.array([b"a", b"\xff\x00"], np.object_)),
        an_input(module, "n", "INT64", np.array([1, 1 << 40], np.int64)),
    ]


def text_of(array):
    return [item.decode("latin-1") for item in array.tolist()]


def plain(told):
    """A message or a dictionary, as a dictionary."""
    if isinstance(told, (dict, list)):
        return told
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(told, preserving_proto_field_name=True)


def refused(call):
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return None


def about(module, client):
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": [
            client.is_model_ready(name, version) for name, version in (("half", ""), ("half", "3"), ("half", "4"), ("none", ""))
        ],
        "server": plain(client.get_server_metadata()),
        "model": plain(client.get_model_metadata("half")),
        "config": plain(client.get_model_config("half")),
        "index": plain(client.get_model_repository_index()),
    }


def inferred(module, client):
    tagged = client.infer(
        "half",
        tags(module),
        outputs=[module.InferRequestedOutput("twice"), module.InferRequestedOutput("text")],
        parameters={"signature_name": "tag"},
    )
    answer = client.infer("half", half_inputs(module), model_version="3", request_id="42")
    names = [output["name"] for output in plain(tagged.get_response())["outputs"]]
    kinds = client.infer(
        "half",
        [an_input(module, dtype, datatype, np.array([value], kind)) for dtype, (datatype, kind, value) in KINDS.items()],
        parameters={"signature_name": "real_kinds"},
    )
    return {
        "y": answer.as_numpy("y").tolist(),
        "id": plain(answer.get_response())["id"],
        "version": plain(answer.get_response())["model_version"],
        "tagged": {"names": names, "twice": tagged.as_numpy("twice").tolist(), "text": text_of(tagged.as_numpy("text"))},
        "kinds": {
            dtype: (kinds.as_numpy(f"{np_name(dtype)}_out") == np.array([value], kind)).all().item()
            for dtype, (_, kind, value) in KINDS.items()
        },
    }


def np_name(dtype):
    return {"half": "float16"}.get(dtype, dtype)


def packed(module, client):
    """Bodies that are compressed both ways."""
    values = np.arange(2000, dtype=np.float32)
    found = {}
    for name in ("gzip", "deflate"):
        ways = (
            {"compression_algorithm": name}
            if module is tritonclient.grpc
            else {"request_compression_algorithm": name, "response_compression_algorithm": name}
        )
        answer = client.infer("half", [an_input(module, "x", "FP32", values)], **ways)
        found[name] = bool((answer.as_numpy("y") == values / 2 + 2).all())
    return found


def errors(module, client):
    def infer(model="half", inputs=None, **options):
        return lambda: client.infer(model, inputs or half_inputs(module), **options)

    return {
        "model": refused(infer("none")),
        "version": refused(infer(model_version="9")),
        "input": refused(infer(inputs=[an_input(module, "z", "FP32", np.ones(1, np.float32))])),
        "datatype": refused(infer(inputs=[an_input(module, "x", "INT32", np.ones(1, np.int32))])),
        "shape": refused(infer(inputs=[an_input(module, "x", "FP32", np.ones((1, 1), np.float32))])),
        "output": refused(infer(outputs=[module.InferRequestedOutput("q")])),
        "graph": refused(infer(inputs=half_inputs(module, -1.0), parameters={"signature_name": "positive"})),
        "shared memory": refused(client.get_system_shared_memory_status),
        "load": refused(lambda: client.load_model("none")),
    }


def as_json(client):
    """Tensors as JSON in both directions."""
    module = tritonclient.http
    answer = client.infer("half", half_inputs(module, binary_data=False), outputs=[module.InferRequestedOutput("y", binary_data=False)])
    return answer.as_numpy("y").tolist()


def streamed(client):
    module, answers = tritonclient.grpc, queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in (1.0, 2.0, 3.0):
        client.async_stream_infer("half", half_inputs(module, number), request_id=str(number))
    client.async_stream_infer("none", half_inputs(module))
    found = [answers.get(timeout=60) for _ in range(4)]
    client.stop_stream()
    return [error.message() if error else [result.get_response().id, result.as_numpy("y").tolist()] for result, error in found]


def in_background(client):
    answers = queue.Queue()
    client.async_infer("half", half_inputs(tritonclient.grpc), lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=60)
    return str(error) if error else result.as_numpy("y").tolist()


async def with_asyncio(module, address):
    """Sixteen at a time, each with an answer of its own."""
    async with module.InferenceServerClient(address) as client:
        live = await client.is_server_live()
        calls = [client.infer("half", half_inputs(module, float(number))) for number in range(16)]
        found = [answer.as_numpy("y").tolist() for answer in await asyncio.gather(*calls)]
    return {"live": live, "all right": found == [[number / 2 + 2] for number in range(16)]}


def main():
    told = {}
    for name, (module, address) in CLIENTS.items():
        with module.InferenceServerClient(address) as client:
            told[name] = {
                "about": about(module, client),
                "inferred": inferred(module, client),
                "packed": packed(module, client),
                "errors": errors(module, client),
                "statistics": plain(client.get_inference_statistics("half")),
            }
            if name == "grpc":
                told["streamed"], told["in background"] = streamed(client), in_background(client)
            else:
                told["as json"] = as_json(client)
    told["grpc.aio"] = asyncio.run(with_asyncio(tritonclient.grpc.aio, GRPC_ADDRESS))
    told["http.aio"] = asyncio.run(with_asyncio(tritonclient.http.aio, REST_ADDRESS))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
