"""What `trainyard doctor` and `trainyard status` look at: small checks, each with what was found and what to do."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import TrainyardException

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

OK, WARN, BAD = "ok", "warn", "bad"
_SECONDS = 3.0
# Package -> the least version that was tried; as in pyproject.toml.
_PACKAGES = {
    "grpcio": (1, 62),
    "protobuf": (4, 25),
    "kafka-python": (3, 0),
    "minio": (7, 2),
    "httpx": (0, 27),
    "typer": (0, 12),
    "rich": (13,),
}
_LAG_RECORDS = 10_000
_SKEW_WARN, _SKEW_BAD = 2.0, 30.0
_DOOR = "trainyard-door"  # what it calls itself
_DISK_WARN, _DISK_BAD = 10e9, 1e9


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do where it is not well."""

    part: str
    state: str
    found: str
    what_to_do: str = ""

    def row(self) -> dict[str, Any]:
        """As an object to print."""
        return {"part": self.part, "state": self.state, "found": self.found, "whatToDo": self.what_to_do}


def reachable(space: Workspace) -> Iterator[Check]:
    """Kafka, the object store, each service and the door that config.json names: does it answer?"""
    yield _timed("kafka", lambda: _kafka(space), "see `make status`; start it with `make up`")
    yield _timed("object store", lambda: _store(space), "see `make status`; start it with `make up`")
    for name, address in sorted(space._stack.get("services", {}).items()):
        yield _timed(name, lambda address=address: _health(address), f"see the log of {name}; `make up` starts what is missing")  # type: ignore[misc]
    if "door" in space._stack:
        yield guarded("models by name", lambda: door(space), "see the log of serving")


def door(space: Workspace) -> Check:
    """Where models are found by name: does the platform answer there, or somebody else?"""
    import httpx

    told = space._stack["door"]
    where = f"gRPC {told['grpc']}, REST {told['rest']}"
    problem = ""
    try:
        answer = httpx.get(f"http://{told['rest']}/v2", timeout=_SECONDS).json()
        problem = "" if answer.get("name") == _DOOR else "somebody else answers there"
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        problem = "nobody answers" if isinstance(error, httpx.ConnectError) else "somebody else answers there"
    if problem:
        what = "endpoints answer at their own ports alone"
        return Check("models by name", WARN, f"{where}: {problem}; {what}", "stop what listens on those ports; serving's log says why")
    return Check("models by name", OK, where)


def versions() -> Check:
    """Of Python and of the packages that the client uses."""
    from trainyard import VERSION

    old = []
    for name, least in _PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            old.append(f"{name} is missing")
            continue
        if tuple(int(part) if part.isdigit() else 0 for part in found.split(".")[: len(least)]) < least:
            old.append(f"{name} {found} is older than {'.'.join(map(str, least))}")
    told = f"trainyard {VERSION}, Python {sys.version.split()[0]}"
    if old:
        return Check("versions", BAD, f"{told}; {'; '.join(old)}", "pip install --upgrade ./sdk")
    return Check("versions", OK, told)


def config_file(space: Workspace) -> Check:
    """Has every key, and is for its owner's eyes: it holds keys of the object store."""
    path = space.config_path
    missing = [key for key in ("kafka_bootstrap", "object_store", "services") if key not in space._stack]
    lacking = {"scheduler", "dataset", "registry", "serving", "history"} - set(space._stack.get("services", {}))
    if missing or lacking:
        what = ", ".join([*missing, *(f"services.{name}" for name in sorted(lacking))])
        return Check("config", BAD, f"{path} has no {what}", "start the stack again with `make up`: it writes the file anew")
    if path is not None and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Check("config", WARN, f"{path} can be read by others, and it holds keys", f"chmod 600 {path}")
    return Check("config", OK, str(path or "given in code"))


def topics(space: Workspace) -> Check:
    """As deploy/topics.yaml says: there, with their partitions, cleaned up by deletion alone."""
    from trainyard._cli.topics import differences

    wrong = differences(space._events.bootstrap)
    if wrong is None:
        return Check("topics", WARN, "deploy/topics.yaml is not at hand: not checked", "run this from a checkout")
    if wrong:
        return Check(
            "topics",
            BAD,
            "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
            "start the stack again; partitions that differ need a new broker",
        )
    return Check("topics", OK, "as deploy/topics.yaml says")


def dead_letters(space: Workspace) -> Check:
    """How many messages no service could take."""
    from trainyard._cli.deadletters import TOPIC
    from trainyard._cli.topics import records

    number = records(space._events.bootstrap, TOPIC)
    if number:
        return Check("dead letters", WARN, f"{number} messages could not be taken", "trainyard deadletters list")
    return Check("dead letters", OK, "none")


def history(space: Workspace) -> Check:
    """How far behind the log it is, in records."""
    from trainyard._cli.history import status_of

    found = status_of(space._clients)
    told = f"{found['events']} events applied, {found['lag']} behind" + (", being rebuilt" if found["rebuilding"] else "")
    if found["lag"] > _LAG_RECORDS:
        return Check("history's lag", WARN, told, "wait; if it does not fall see the log of history, then `trainyard history rebuild`")
    return Check("history's lag", OK, told)


def disk(space: Workspace) -> Iterator[Check]:
    """Space where the stack keeps its state (if that is on this machine) and where files are downloaded to."""
    import shutil

    home = Path(str(space._stack.get("home", "")))
    folders = {folder for folder in (home if home.is_absolute() else None, Path.cwd()) if folder is not None and folder.is_dir()}
    for folder in sorted(folders):
        free = shutil.disk_usage(folder).free
        state = BAD if free < _DISK_BAD else WARN if free < _DISK_WARN else OK
        yield Check(
            f"disk of {folder}", state, f"{free / 1e9:.1f} GB free", "" if state == OK else "make room: run outputs and caches lie there"
        )


def clock(space: Workspace) -> Check:
    """This machine's clock against the object store's, to the second that HTTP's Date header gives."""
    import httpx

    endpoint = space._stack["object_store"]["endpoint"]
    began = time.time()
    answer = httpx.get(f"http://{endpoint}/minio/health/live", timeout=_SECONDS)
    return skew(answer.headers.get("date", ""), began, time.time())


def skew(date: str, began: float, ended: float) -> Check:
    """The store's Date header was made between began and ended, by this machine's clock in seconds since 1970."""
    from email.utils import parsedate_to_datetime

    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Check("clock", WARN, "the object store tells no time", "")
    # The header leaves out the fraction: anything within its second is no difference.
    ahead = max(began - (theirs + 1), 0.0) - max(theirs - ended, 0.0)
    if abs(ahead) > _SKEW_WARN:
        state = BAD if abs(ahead) > _SKEW_BAD else WARN
        word = "ahead of" if ahead > 0 else "behind"
        return Check("clock", state, f"this machine is {abs(ahead):.0f} s {word} the object store", "set the clock: ntpd or chrony")
    return Check("clock", OK, "agrees with the object store's")


def guarded(part: str, check: Callable[[], Check], what_to_do: str) -> Check:
    """What a check found, or why it could not be made."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a doctor looks at what is broken
        told = error.message if isinstance(error, TrainyardException) else f"{type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, TrainyardException) and error.hint else what_to_do
        return Check(part, BAD, told.splitlines()[0][:300] if told else type(error).__name__, hint)


def _timed(part: str, ask: Callable[[], str], what_to_do: str) -> Check:
    began = time.monotonic()
    return guarded(part, lambda: Check(part, OK, f"{ask()}, answered in {1000 * (time.monotonic() - began):.0f} ms"), what_to_do)


def _kafka(space: Workspace) -> str:
    import socket

    host, _, port = space._events.bootstrap.rpartition(":")
    # kafka-python would wait for long, and leave sockets open, where nobody listens.
    socket.create_connection((host, int(port)), _SECONDS).close()
    return f"{space._events.bootstrap}, {len(space._events.topics())} topics"


def _store(space: Workspace) -> str:
    import httpx

    store = space._stack["object_store"]
    httpx.get(f"http://{store['endpoint']}/minio/health/live", timeout=_SECONDS).raise_for_status()
    space._objects.exists("snapshots/none")
    return f"{store['endpoint']}, bucket {store['bucket']}"


def _health(address: str) -> str:
    """gRPC's health protocol, without its package: the answer's first field is 1 where it serves."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes)
        try:
            answer = call(b"", timeout=_SECONDS)
        except grpc.RpcError as error:
            raise TrainyardException(f"{address} does not answer ({error.code().name})") from error
    if answer != b"\x08\x01":
        raise TrainyardException(f"{address} answers, but is not ready")
    return address
