"""Run by the tests where kserve is installed: `python client_kserve.py GRPC_ADDRESS REST_URL` prints as JSON what it was answered."""

import asyncio
import json
import logging
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

logging.disable(logging.CRITICAL)  # it logs every refusal with its traceback
GRPC_ADDRESS, REST_URL = sys.argv[1:]


def a_request(*, binary, model="half", outputs=False, signature=""):
    made = InferInput("x", [2], "FP32")
    made.set_data_from_numpy(np.array([1, 4], np.float32), binary_data=binary)
    return InferRequest(
        model_name=model,
        infer_inputs=[made],
        request_id="42",
        request_outputs=[RequestedOutput("y", {"binary_data": binary})] if outputs else None,
        parameters={"signature_name": signature} if signature else None,
    )


def shown(response):
    (output,) = response.outputs
    assert isinstance(output, InferOutput)
    return [response.model_name, response.id, output.name, output.datatype, output.shape, output.as_numpy().tolist()]


async def refused(call):
    try:
        await call
    except Exception as error:
        return str(error)
    return ""


async def main():
    told = {}
    async with InferenceGRPCClient(GRPC_ADDRESS) as client:
        told["grpc"] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": [await client.is_model_ready("half"), await client.is_model_ready("none")],
            "raw": shown(await client.infer(a_request(binary=True))),
            "typed": shown(await client.infer(a_request(binary=False, outputs=True))),
            "signature": shown(await client.infer(a_request(binary=True, signature="positive"))),
            "refused": await refused(client.infer(a_request(binary=True, model="none"))),
        }
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    told["rest"] = {
        "live": await client.is_server_live(REST_URL),
        "ready": await client.is_server_ready(REST_URL),
        "model ready": [await client.is_model_ready(REST_URL, name) for name in ("half", "none")],
        "raw": shown(await client.infer(REST_URL, a_request(binary=True, outputs=True), model_name="half")),
        "typed": shown(await client.infer(REST_URL, a_request(binary=False), model_name="half")),
        "signature": shown(await client.infer(REST_URL, a_request(binary=False, signature="positive"), model_name="half")),
        "refused": await refused(client.infer(REST_URL, a_request(binary=False), model_name="none")),
    }
    await client.close()
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main())
