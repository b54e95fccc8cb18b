"""Scoring scripts that see the HTTP call itself: @rawhttp, the request that `run` gets then, and the answer that it may give. Standard
library only: it is imported in whatever environment a script has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from email.parser import BytesHeaderParser
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import parse_qsl

Run = TypeVar("Run", bound=Callable[..., Any])
_MOST_PARTS = 1000


class Values(dict[str, Any]):
    """Values by name; of one that came several times the first, and all of them by getlist()."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self._pairs = pairs

    def getlist(self, name: str) -> list[Any]:
        """Every value of that name, in the order in which they came."""
        return [value for key, value in self._pairs if key == name]


class Headers(Mapping[str, str]):
    """Headers by name in whatever case."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = {name.lower(): (name, value) for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self._headers[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._headers.values())

    def __len__(self) -> int:
        return len(self._headers)


class UploadedFile(BytesIO):
    """A file of a form, as a stream. Attributes: filename, content_type."""

    def __init__(self, content: bytes, filename: str, content_type: str) -> None:
        super().__init__(content)
        self.filename = filename
        self.content_type = content_type

    @property
    def stream(self) -> UploadedFile:
        """The file itself."""
        return self


class AMLRequest:
    """A call as it came. Attributes: method, path, query_string (bytes), headers (by name in whatever case)."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.path, _, query = target.partition("?")
        self.query_string = query.encode("latin-1", "replace")
        self.headers = Headers(headers)
        self._body = body
        self._parts: tuple[Values, Values] | None = None

    @property
    def full_path(self) -> str:
        """Path and query; it ends in "?" where there is no query."""
        return f"{self.path}?{self.query_string.decode('latin-1')}"

    @property
    def url(self) -> str:
        """The whole address, as its caller named it."""
        return f"{self.base_url}?{self.query_string.decode('latin-1')}" if self.query_string else self.base_url

    @property
    def base_url(self) -> str:
        """The address without its query."""
        return f"http://{self.headers.get('Host', 'localhost')}{self.path}"

    @property
    def args(self) -> Values:
        """What the query says."""
        return Values(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARTS))

    @property
    def content_type(self) -> str:
        """As it was sent; empty where nothing was said."""
        return self.headers.get("Content-Type", "")

    @property
    def mimetype(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int:
        """Bytes of the body."""
        return len(self._body)

    @property
    def data(self) -> bytes:
        """The body."""
        return self._body

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """The body, as bytes or as text. The other options change nothing: it is there as often as it is asked for."""
        return self._body.decode("utf-8", "replace") if as_text else self._body

    @property
    def is_json(self) -> bool:
        """Whether the content type is one of JSON's."""
        return self.mimetype == "application/json" or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:
        """As get_json() gives it."""
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body's JSON; None where the content type is another one and force is not given. Raises ValueError unless silent."""
        if not (force or self.is_json):
            return None
        try:
            return json.loads(self._body)
        except ValueError:
            if silent:
                return None
            raise

    @property
    def form(self) -> Values:
        """Fields of a form."""
        return self._form()[0]

    @property
    def files(self) -> Values:
        """Files of a form, each a stream with a filename."""
        return self._form()[1]

    @property
    def values(self) -> Values:
        """What query and form say, the query first."""
        return Values([*self.args._pairs, *self.form._pairs])

    def _form(self) -> tuple[Values, Values]:
        if self._parts is None:
            if self.mimetype == "application/x-www-form-urlencoded":
                fields = parse_qsl(self._body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_PARTS)
                self._parts = Values(fields), Values([])
            else:
                self._parts = (
                    _parts_of(self.content_type, self._body) if self.mimetype == "multipart/form-data" else (Values([]), Values([]))
                )
        return self._parts


class AMLResponse:
    """What `run` may give in place of a value: message (bytes, text, or with json_str a value for JSON), status_code, headers.

    The content type is HTML's where response_headers name none, as Azure has it; JSON's with json_str. headers may be changed still.
    """

    def __init__(
        self,
        message: Any,
        status_code: int = 200,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        as_json = json_str or message is None
        self.status_code = status_code
        self.data: bytes = message if isinstance(message, bytes) else _encoded({} if message is None else message, as_json=as_json)
        self.headers: dict[str, str] = {"Content-Type": "application/json" if as_json else "text/html; charset=utf-8"}
        if run_function_failed:
            self.headers["x-ms-run-function-failed"] = "True"
        for name, value in (response_headers or {}).items():
            for known in [known for known in self.headers if known.lower() == name.lower()]:
                del self.headers[known]
            self.headers[name] = value

    def get_data(self, as_text: bool = False) -> Any:
        """The body, as bytes or as text."""
        return self.data.decode("utf-8", "replace") if as_text else self.data

    def _trainyard_raw_http(self) -> tuple[int, dict[str, str], bytes]:
        return self.status_code, {str(name): str(value) for name, value in self.headers.items()}, self.data


def rawhttp(run: Run) -> Run:
    """A decorator of a scoring script's `run`, which gets an AMLRequest then, and may answer with an AMLResponse."""
    # The server, which has this module not, finds by it how to make a request.
    run._trainyard_raw_http = AMLRequest  # type: ignore[attr-defined]
    return run


def _encoded(message: Any, *, as_json: bool) -> bytes:
    if as_json:
        return json.dumps(message).encode()
    if not isinstance(message, str):
        raise TypeError(f"message is bytes or text, not {type(message).__name__}; json_str=True sends it as JSON")
    return message.encode()


def _parts_of(content_type: str, body: bytes) -> tuple[Values, Values]:
    """Fields and files of a form. Raises ValueError for a body that is none."""
    told = Message()
    told["Content-Type"] = content_type
    boundary = told.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise ValueError("the form names no boundary")
    fields: list[tuple[str, Any]] = []
    files: list[tuple[str, Any]] = []
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"), _MOST_PARTS + 1)
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return Values(fields), Values(files)
        head, gap, content = piece.partition(b"\r\n\r\n")
        headers = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
        name, filename = headers.get_param("name", header="content-disposition"), headers.get_filename()
        if not gap or not isinstance(name, str):
            break
        if filename is None:
            fields.append((name, content.decode("utf-8", "replace")))
        else:
            files.append((name, UploadedFile(content, filename, headers.get("content-type", "application/octet-stream"))))
    raise ValueError(f"the form is cut short, or has more than {_MOST_PARTS} parts")
