"""Servers that do nothing but answer: `python serving_nothing.py grpc|rest PORT FILE` sends the bytes of FILE whatever it is asked."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_WAY, _PORT = sys.argv[1], int(sys.argv[2])
_ANSWER = Path(sys.argv[3]).read_bytes()
_CALL = {"Predict": "tensorflow.serving.PredictionService"}


def serve_grpc() -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(8))
    for method, service in _CALL.items():
        handler = grpc.unary_unary_rpc_method_handler(lambda raw, context: _ANSWER, None, None)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(f"127.0.0.1:{_PORT}")
    server.start()
    server.wait_for_termination()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """ASGI. The body is taken in, as whoever looks at it has to."""
    while scope["type"] == "http" and (await receive()).get("more_body"):
        continue
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": _ANSWER})


def serve_rest() -> None:
    import uvicorn

    uvicorn.run(application, host="127.0.0.1", port=_PORT, log_level="error", access_log=False, lifespan="off")


if __name__ == "__main__":
    serve_grpc() if _WAY == "grpc" else serve_rest()
