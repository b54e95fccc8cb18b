"""What a caller did wrong or met, by canonical status code (the same numbers as gRPC)."""

from __future__ import annotations

CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 2, 3, 4, 5
ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 6, 7, 8, 9
ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 10, 11, 12, 13, 14, 16

# As TensorFlow Serving maps them.
HTTP = {
    CANCELLED: 499, INVALID_ARGUMENT: 400, DEADLINE_EXCEEDED: 504, NOT_FOUND: 404, ALREADY_EXISTS: 409, PERMISSION_DENIED: 403,
    RESOURCE_EXHAUSTED: 429, FAILED_PRECONDITION: 400, ABORTED: 409, OUT_OF_RANGE: 400, UNIMPLEMENTED: 501, UNAVAILABLE: 503,
    UNAUTHENTICATED: 401,
}  # fmt: skip
_MESSAGE_CHARACTERS = 1024


class ServeError(Exception):
    """Carries TensorFlow Serving's code and text for the case. Texts are cut: gRPC carries them in a header."""

    def __init__(self, code: int, message: str, *, http_status: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message[:_MESSAGE_CHARACTERS]
        self.http_status = http_status or HTTP.get(code, 500)


def invalid(message: str) -> ServeError:
    return ServeError(INVALID_ARGUMENT, message)
