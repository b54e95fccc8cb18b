"""A model server or a scoring script as a child process: started in its environment, heard until it says that it is ready, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

import trainyard
from services.serving.adapters.endpoint_certificates import EndpointCertificates
from services.serving.adapters.endpoint_keys import key_file
from services.serving.adapters.listening import Listening
from services.serving.adapters.sample_spools import spool_folder
from services.serving.pinned import context_for
from services.serving.ports import CannotServe, Content, Fetched, Ports, PortTaken, Say
from trainyard.endpoint.v1.endpoint_pb2 import Limits
from trainyard.event.v1.artifact_pb2 import Failure

# What the model server imports beside TensorFlow; all fit every line of it.
SERVER_PACKAGES = ("grpcio==1.85.1", "orjson==3.13.0", "protobuf>=4.25.3,<8")
REPO = Path(__file__).resolve().parents[3]
# So that a scoring script finds `trainyard` and `azureml`, behind all that its environment has.
SDK = (Path(trainyard.__file__).resolve().parents[1], Path(trainyard.__file__).resolve().parents[1] / "azureml-alias")
_PORT_TAKEN = 4
_LAST_LINES = 20
_MAX_LINE = 64 << 10
_COUNTED = ":tensorflow:serving:request_count{"
_UNDER_WAY = "trainyard_serving_under_way "
_EXIT_LOOK_SECONDS, _LAST_WORDS_SECONDS = 0.05, 2.0
_LOOK_SECONDS = 0.5  # between two looks at how much memory a server takes
# A list of what is given, never of what is kept back: keys of the object store are no business of a user's model.
_GIVEN = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD")
_GIVEN_PREFIXES = ("LC_", "TF_", "CUDA_", "NVIDIA_", "OMP_", "KMP_", "MKL_", "GRPC_", "MALLOC_")


class ModelServers:
    def __init__(self, host: str, home: Path, load_seconds: float, memory_budget: int = 0) -> None:
        """`load_seconds`: from the start of a process to its first answer. `memory_budget`: bytes that all servers may take together, so no
        single one more; 0: no bound."""
        self._host = host
        self._home = home
        self._load_seconds = load_seconds
        self._certificates = EndpointCertificates(home)
        self._memory_budget = memory_budget
        self._listening = Listening(host)

    def is_free(self, ports: Ports) -> bool:
        return all(_is_free(self._host, port) for port in (ports.grpc, ports.rest) if port)

    async def start(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> ModelServer:
        with ExitStack() as held:
            rest = held.enter_context(self._listening.on(ports.rest, content.endpoint))
            server = await self._process(python, content, fetched, ports.grpc, rest, say)
            server.when_over(held.pop_all().close)
        try:
            await server.until_ready(self._load_seconds)
        except BaseException:
            await server.stop(0)
            raise
        return server

    async def _process(self, python: Path, content: Content, fetched: Fetched, grpc: int, rest: socket.socket, say: Say) -> ModelServer:
        has_code = content.scoring is not None
        process = await asyncio.create_subprocess_exec(
            *(self._scoring(python, content, rest) if has_code else self._serving(python, content, fetched, grpc, rest)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=fetched.path if has_code else self._home,
            env=child_environment(os.environ) | limits_as_variables(content.limits) | code_variables(content, fetched),
            process_group=0,
            pass_fds=(rest.fileno(),),
        )
        server = ModelServer(process, content, say, "127.0.0.1" if self._host == "0.0.0.0" else self._host, rest.getsockname()[1])
        server.bound(content.limits.memory_bytes, self._memory_budget)
        return server

    def _serving(self, python: Path, content: Content, fetched: Fetched, grpc: int, rest: socket.socket) -> list[str]:
        (version,) = content.models
        options = {
            "model-name": version.model,
            "model-path": fetched.path,
            "version": version.version,
            "host": self._host,
            "grpc-port": grpc,
            "rest-fd": rest.fileno(),
            "parent-pid": os.getpid(),
            "key-file": key_file(self._home, content.endpoint),
            "samples": spool_folder(self._home, content.endpoint, content.deployment),
            "manage-models": "false",
        }
        if content.tls is not None:
            options |= dict.fromkeys(("ssl-config-file", "rest-api-ssl-config-file"), self._certificates.files(content.tls).config)
        if content.limits.cpu_cores:
            options["tensorflow-session-parallelism"] = math.ceil(content.limits.cpu_cores)
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(python), "-P", "-m", "services.serving.model_server", *words, "--share-ports"]

    def _scoring(self, python: Path, content: Content, rest: socket.socket) -> list[str]:
        assert content.scoring is not None
        options = {
            "entry-script": content.scoring.entry_script,
            "host": self._host,
            "rest-fd": rest.fileno(),
            "key-file": key_file(self._home, content.endpoint),
            "samples": spool_folder(self._home, content.endpoint, content.deployment),
            "parent-pid": os.getpid(),
            "then-path": os.pathsep.join(map(str, SDK)),
        }
        if content.tls is not None:
            options["tls-file"] = self._certificates.files(content.tls).pem
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(python), "-P", "-m", "services.serving.scoring_server", *words]


class ModelServer:
    """One process. All that it writes goes to `say`; the JSON line on standard output says that it answers, and where."""

    def __init__(self, process: asyncio.subprocess.Process, content: Content, say: Say, host: str, rest_port: int) -> None:
        self._process = process
        self._content = content
        self._say = say
        self._host = host
        self._rest_port = rest_port
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._bound = (0, "")  # bytes of memory, and whose bound that is
        self._over = ""  # why it was ended, where it took too much memory
        self._leave: Callable[[], None] = lambda: None
        self._watching: asyncio.Task[None] | None = None
        assert process.stdout is not None and process.stderr is not None
        self._reading = [asyncio.create_task(self._read_output(process.stdout)), asyncio.create_task(self._read_errors(process.stderr))]

    @property
    def ports(self) -> Ports:
        """A script may print any number; where it answers over REST is ours to know, and over gRPC it does not."""
        return Ports(int(self._ready.result()["grpc_port"]) if self._content.scoring is None else 0, self._rest_port)

    @property
    def signatures(self) -> tuple[str, ...]:
        return tuple(self._ready.result()["signatures"])

    def when_over(self, leave: Callable[[], None]) -> None:
        """Called once, when the process was stopped or has ended and `stop` has seen it."""
        self._leave = leave

    def bound(self, memory_bytes: int, budget: int = 0) -> None:
        """From here on it is ended where it takes more than its own bound, or than all servers may take together; 0: no bound."""
        bounds = [
            (memory_bytes, "is its bound; give it more memory_gb"),
            (budget, "is what all endpoints may take together; set more serving.memory_budget_bytes"),
        ]
        if found := [it for it in bounds if it[0]]:
            self._bound = min(found)
            self._watching = asyncio.create_task(self._watch_memory())

    async def _watch_memory(self) -> None:
        while self._process.returncode is None:
            if why := await asyncio.to_thread(self._exceeds):
                self._over = why
                self._hear(why)
                self._signal(signal.SIGKILL)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _exceeds(self) -> str:
        """Its bound, and in which words; "" where it does not."""
        most, bound = self._bound
        used = _memory(self._process.pid, most) if most else 0
        return f"the server took {used / 2**20:.0f} MiB of memory, and {most / 2**20:.0f} MiB {bound}" if used > most else ""

    async def calls(self) -> int | None:
        """As its metrics have it."""
        tls = self._content.tls
        return await asyncio.to_thread(_calls, self._host, self.ports.rest, tls.certificate_pem if tls is not None else "")

    async def memory(self) -> int:
        return await asyncio.to_thread(_memory, self._process.pid)

    async def until_ready(self, seconds: float) -> None:
        """Raises CannotServe, and PortTaken."""
        ended = asyncio.create_task(self._ended())
        either: list[asyncio.Future[Any]] = [self._ready, ended]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError as error:
            raise CannotServe(self._failure("LoadTimedOut", f"the model server did not answer within {seconds:.0f} s")) from error
        finally:
            ended.cancel()
        failed = "ModelLoadFailed" if self._content.scoring is None else "ScoringScriptFailed"
        if self._ready.done():
            # One that fills its memory faster than anybody looks never answers a call.
            if why := await asyncio.to_thread(self._exceeds):
                raise CannotServe(self._failure(failed, why))
            return
        code, why = ended.result()
        if code == _PORT_TAKEN:
            raise PortTaken(why)
        raise CannotServe(self._failure(failed, why, code))

    async def wait(self) -> Failure:
        code, why = await self._ended()
        return self._failure("ModelServerDied", why, code)

    async def stop(self, grace_seconds: float) -> None:
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_seconds):
                    await self._exit()
            except TimeoutError:
                pass
            finally:
                if self._process.returncode is None:
                    self._signal(signal.SIGKILL)
        await self._exit()
        leave, self._leave = self._leave, lambda: None
        leave()
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)

    async def _exit(self) -> int:
        """asyncio's own wait lasts as long as a process that was left behind holds the output open; none outlives the server."""
        while self._process.returncode is None:
            await asyncio.sleep(_EXIT_LOOK_SECONDS)
        self._signal(signal.SIGKILL)
        return self._process.returncode

    async def _ended(self) -> tuple[int, str]:
        """The exit code, and what happened in words, once all that it wrote was read."""
        code = await self._exit()
        await asyncio.wait(self._reading, timeout=_LAST_WORDS_SECONDS)
        if self._over:
            return code, self._over
        if code < 0:
            memory = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
            return code, f"the model server was killed by {signal.Signals(-code).name}{memory}"
        return code, self._last[-1] if code and self._last else f"the model server ended with exit code {code}"

    def _failure(self, code: str, why: str, exit_code: int | None = None) -> Failure:
        what = f"Model {self._content.title}" if self._content.scoring is None else self._content.title
        return Failure(
            code=code, message=f"{what}: {why}"[:3000], target=self._content.id, last_lines=list(self._last), exit_code=exit_code
        )

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            told = _as_ready(line)
            if told is not None and not self._ready.done():
                self._ready.set_result(told)
            else:
                self._hear(line)

    async def _read_errors(self, stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            self._hear(line)

    def _hear(self, line: str) -> None:
        self._last.append(line[:1000])
        self._say(line)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What a model server may see of this service's environment."""
    given = {name: value for name, value in ours.items() if name in _GIVEN or name.startswith(_GIVEN_PREFIXES)}
    return {**given, "PYTHONPATH": str(REPO), "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}


def code_variables(content: Content, fetched: Fetched) -> dict[str, str]:
    """What a scoring script finds in its environment; nothing without code."""
    if content.scoring is None:
        return {}
    own = dict(content.scoring.environment.environment_variables)
    return own | {
        "PYTHONPATH": str(REPO),  # the scoring server takes it away before it reads the script
        "AZUREML_MODEL_DIR": str(fetched.model_dir),
        "AZUREML_ENTRY_SCRIPT": content.scoring.entry_script,
        "SERVICE_NAME": content.endpoint,
    }


def limits_as_variables(limits: Limits) -> dict[str, str]:
    """Threads that compute, for TensorFlow and for whatever goes by OpenMP; nothing where there is no bound."""
    if not limits.cpu_cores:
        return {}
    threads = str(math.ceil(limits.cpu_cores))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, threads)


def reachable_at(host: str) -> str:
    """Where others reach what listens on that address."""
    return socket.gethostname() if host == "0.0.0.0" else host


def _resident(pid: int) -> int | None:
    """Bytes of memory that a process takes; None where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _memory(pid: int, enough: int = 0) -> int:
    """Bytes that a process takes with its children: a script may do its work in processes of its own. What they share counts once; unless
    they are below `enough` even so, because the closer look takes longer."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        children = []
    every = [pid, *(child.pid for child in children)]
    found = sum(_resident(it) or 0 for it in every)
    return found if len(every) == 1 or found <= enough else sum(_proportional(it) for it in every)


def _proportional(pid: int) -> int:
    """Its own memory, and of what it shares its part; all of it where the system does not tell."""
    try:
        words = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
        return int(words[words.index("Pss:") + 1]) << 10
    except (OSError, ValueError, IndexError):
        return _resident(pid) or 0


def _calls(host: str, port: int, certificate: str) -> int | None:
    """`certificate`: in PEM, where it speaks TLS."""
    seconds = _LOOK_SECONDS * 4
    connection = (
        http.client.HTTPSConnection(host, port, timeout=seconds, context=context_for(certificate))
        if certificate
        else http.client.HTTPConnection(host, port, timeout=seconds)
    )
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            return None  # all its connections are in use
        told = answer.read().decode().splitlines()
        if any(line.startswith(_UNDER_WAY) and not line.endswith(" 0") for line in told):
            return None
        return sum(int(float(line.rpartition(" ")[2])) for line in told if line.startswith(_COUNTED))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections to it do no harm
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _as_ready(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("ready") is not True:
        return None
    # A script prints what it likes, what it was sent included.
    ports, names = [told.get("grpc_port"), told.get("rest_port")], told.get("signatures")
    fits = (
        all(type(it) is int and 0 <= it < 1 << 16 for it in ports) and isinstance(names, list) and all(isinstance(it, str) for it in names)
    )
    return told if fits else None


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Without an end to a line there is one after 64 KiB."""
    rest = b""
    while block := await stream.read(1 << 16):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > _MAX_LINE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")
