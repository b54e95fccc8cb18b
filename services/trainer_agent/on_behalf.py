"""What a script asks for and its agent does: the agent holds the credentials, the script does not. Every value that comes in is
checked for its type here; rules about runs are the scheduler's, and its refusal is what the script sees."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import structlog
from google.protobuf.message import Message

from services.trainer_agent.adapters.outputs import plain_files
from services.trainer_agent.layout import Folders
from services.trainer_agent.registration import registration, texts
from trainyard._client_run import new_run_id
from trainyard._errors import ModelPathNotFoundException, TrainyardException, UserErrorException
from trainyard._metrics import once, preferred
from trainyard._objects import Objects
from trainyard._paths import safe_relpath
from trainyard._uploads import put
from trainyard._values import value_of
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Attempt, Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1 import model_pb2

log = structlog.get_logger()
JOBS, MODELS, METRICS = "trainyard.jobs", "trainyard.models", "trainyard.metrics"
_CHILDREN, _MOST_CHILDREN, _FILES = 1000, 10_000, 3000
_CLOCK_SLACK_SECONDS = 120.0
# Apart from the threads that publish and beat: a script that asks for much must not make its agent look dead.
_threads = ThreadPoolExecutor(8, thread_name_prefix="on-behalf")
_ENDS = {"COMPLETED": job.RUN_STATUS_COMPLETED, "FAILED": job.RUN_STATUS_FAILED, "CANCELED": job.RUN_STATUS_CANCELED}


class Log(Protocol):
    """The platform's log, as a client of it. Blocking; raises PlatformUnavailableException."""

    def ask(
        self, topic: str, requests: Mapping[str, Message], is_answer: Callable[[bool, Message], bool], since: float | None = None
    ) -> Mapping[str, Message]:
        """Publishes the requests and waits for the first event of each key that `is_answer` (whether it follows from the
        request, its message) takes: behind the request, or from a time in seconds on."""
        ...

    def messages(self, topic: str, key: str, since: float) -> list[Message]:
        """What lies there of that key since a time in seconds, to the end."""
        ...


class OnBehalf:
    """The requests of one attempt's script."""

    def __init__(
        self,
        offer: Any,
        folders: Folders,
        platform: Log,
        objects: Objects,
        flush: Callable[[], Any],
        is_discarded: Callable[[], bool],
    ) -> None:
        self._offer = offer
        self._folders = folders
        self._log = platform
        self._objects = objects
        self._flush = flush
        self._is_discarded = is_discarded
        # An agent that slept learns late that its attempt is over: whoever answers looks at this, and refuses.
        self._by = Attempt(run_id=offer.run_id, epoch=offer.epoch)
        self._began = time.time()
        self._children: set[str] = set()

    def owns(self, run_id: str) -> bool:
        return run_id in self._children

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"ok": ...} or {"error": {code, message, target}}. Never raises."""
        try:
            what = request.get("ask")
            method = {
                "tag": self._tag,
                "add_properties": self._add_properties,
                "view": self._view,
                "details": self._details,
                "metrics": self._metrics,
                "upload": self._upload,
                "open_children": self._open_children,
                "close": self._close,
                "register_model": self._register_model,
            }.get(what if isinstance(what, str) else "")
            if method is None:
                raise UserErrorException(f"The agent knows no request {str(what)[:100]!r}.")
            run_id = request.get("run") or self._offer.run_id
            if run_id != self._offer.run_id and not (isinstance(run_id, str) and self.owns(run_id)):
                raise UserErrorException(f"{str(run_id)[:150]!r} is no run of this script.", target="run")
            self._demand_that_it_counts()
            if what == "metrics":
                await self._flush()
            return {"ok": await asyncio.get_running_loop().run_in_executor(_threads, method, run_id, request)}
        except TrainyardException as error:
            return {"error": {"code": error.code, "message": error.message, "target": error.target}}
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, OSError) as error:
            log.info("refused a script's request", run=self._offer.run_id, reason=str(error)[:500])
            return {"error": {"code": "UserError", "message": f"The request cannot be taken: {type(error).__name__}: {error}"[:3000]}}
        except Exception as error:
            log.exception("a script's request broke", run=self._offer.run_id)
            return {"error": {"code": "NodeError", "message": f"The agent failed at the request: {type(error).__name__}"}}

    def _ask(
        self, topic: str, requests: Mapping[str, Any], is_answer: Callable[[bool, Message], bool], since: float | None = None
    ) -> Mapping[str, Message]:
        """In the name of the attempt, while it counts."""
        self._demand_that_it_counts()
        for request in requests.values():
            request.by.CopyFrom(self._by)
        return self._log.ask(topic, requests, is_answer, since)

    def _demand_that_it_counts(self) -> None:
        if self._is_discarded():
            what = f"Attempt {self._by.epoch} of run {self._by.run_id} is over. Nothing of what its script asks for is done."
            raise UserErrorException(what, code="AttemptIsOver", target=self._by.run_id)

    # -- requests about runs

    def _run_request(self, run_id: str, request: Any, answer: type[Message]) -> Any:
        """The fact that answers it; a warning that the request led to is a refusal."""

        def is_answer(follows: bool, message: Message) -> bool:
            return follows and isinstance(message, (answer, job.RunWarned))

        fact: Any = self._ask(JOBS, {run_id: request}, is_answer)[run_id]
        if isinstance(fact, job.RunWarned):
            raise UserErrorException(fact.message)
        return fact

    def _tag(self, run_id: str, request: dict[str, Any]) -> bool:
        removed = [str(name) for name in request["removed"]]
        self._run_request(run_id, job.TagRun(run_id=run_id, set=texts(request["set"]), removed=removed), job.RunTagged)
        return True

    def _add_properties(self, run_id: str, request: dict[str, Any]) -> bool:
        wanted = job.AddRunProperties(run_id=run_id, properties=texts(request["properties"]))
        self._run_request(run_id, wanted, job.RunPropertiesAdded)
        return True

    def _open_children(self, run_id: str, request: dict[str, Any]) -> list[str]:
        wanted = request["children"]
        if not isinstance(wanted, list) or not 1 <= len(wanted) <= _CHILDREN:
            raise UserErrorException(f"1 to {_CHILDREN} children are made at a time.", target="children")
        if len(self._children) + len(wanted) > _MOST_CHILDREN:
            raise UserErrorException(f"A script opens {_MOST_CHILDREN} children at most.", target="children")
        openings = [self._opening(run_id, child) for child in wanted]
        facts: Any = self._ask(
            JOBS, {it.submission_id: it for it in openings}, lambda _, message: isinstance(message, job.RunOpened | job.RunRejected)
        )
        self._children |= {run_id for run_id, fact in facts.items() if isinstance(fact, job.RunOpened)}
        for fact in facts.values():
            if isinstance(fact, job.RunRejected):
                raise UserErrorException(fact.failure.message, code=fact.failure.code, target=fact.failure.target)
        return [it.submission_id for it in openings]

    def _opening(self, parent: str, child: dict[str, Any]) -> Any:
        return job.OpenRun(
            submission_id=new_run_id(self._offer.experiment[:100], time.time()),
            experiment=self._offer.experiment,
            parent_run_id=parent,
            tags=texts(child.get("tags") or {}),
            display_name=str(child.get("display_name") or "")[:255],
        )

    def _close(self, run_id: str, request: dict[str, Any]) -> bool:
        if not self.owns(run_id):
            raise UserErrorException("A submitted run ends with its script.", target=run_id)
        given = request.get("failure") or {}
        status = _ENDS[str(request["status"])]
        closing = job.CloseRun(run_id=run_id, status=status)
        if given:
            lines = [str(line)[:1000] for line in given.get("last_lines") or ()][-20:]
            message, code = str(given.get("message") or "")[:3000], str(given.get("code") or "")[:100]
            closing.failure.CopyFrom(Failure(code=code, message=message, last_lines=lines))
        ends = (job.RunCompleted, job.RunFailed, job.RunCanceled)

        def is_answer(follows: bool, message: Message) -> bool:
            return isinstance(message, ends) or (follows and isinstance(message, job.RunWarned))

        # It may have ended already, with its parent: then nothing follows from the request.
        fact: Any = self._ask(JOBS, {run_id: closing}, is_answer, since=self._began - _CLOCK_SLACK_SECONDS)[run_id]
        if isinstance(fact, job.RunWarned):
            raise UserErrorException(fact.message)
        return True

    # -- reads

    def _facts(self, run_id: str) -> list[Any]:
        return self._log.messages(JOBS, run_id, self._began - _CLOCK_SLACK_SECONDS)

    def _view(self, run_id: str, _: dict[str, Any]) -> dict[str, Any]:
        """Tags, properties, uploaded files and status, with all that was asked for up to now."""
        own = run_id == self._offer.run_id
        tags, properties = (dict(self._offer.tags), dict(self._offer.properties)) if own else ({}, {})
        files: set[str] = set()
        status = "Running"
        for message in self._facts(run_id):
            match message:
                case job.RunOpened():
                    tags, properties = dict(message.tags), dict(message.properties)
                case job.RunTagged():
                    tags = {name: value for name, value in tags.items() if name not in message.removed} | dict(message.set)
                case job.RunPropertiesAdded():
                    properties |= dict(message.properties)
                case job.RunFilesAdded():
                    files.update(file.path for file in message.files.files)
                case job.RunCancelRequested():
                    status = "CancelRequested"
                case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
                    status = type(message).__name__.removeprefix("Run")
        return {"tags": tags, "properties": properties, "files": sorted(files), "status": status}

    def _details(self, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
        from trainyard._details import details
        from trainyard.history.v1.history_pb2 import RunView

        seen = self._view(run_id, request)
        own = run_id == self._offer.run_id
        run = job.Run(run_id=run_id, epoch=self._offer.epoch if own else 0, status=job.RUN_STATUS_RUNNING)
        run.started_at.FromSeconds(int(self._began))
        if own:
            run.spec.CopyFrom(self._offer.spec)
        found = details(RunView(run=run), {})
        return {**found, "status": seen["status"], "tags": seen["tags"], "properties": {**found["properties"], **seen["properties"]}}

    def _metrics(self, run_id: str, _: dict[str, Any]) -> list[tuple[str, str, Any]]:
        epoch = self._offer.epoch if run_id == self._offer.run_id else 0
        batches: list[Any] = self._log.messages(METRICS, run_id, self._began - _CLOCK_SLACK_SECONDS)
        points = once(preferred([batch for batch in batches if batch.epoch == epoch]))
        return [(point.name, point.kind, value_of(point)) for point in points]

    # -- files

    def _upload(self, run_id: str, request: dict[str, Any]) -> bool:
        wanted = request["files"]
        if not isinstance(wanted, list) or not 1 <= len(wanted) <= _FILES:
            raise UserErrorException(f"1 to {_FILES} files are uploaded at a time.", target="files")
        pairs = [(safe_relpath(str(name)), self._spooled(str(spooled))) for name, spooled in wanted]
        try:
            files = [put(self._objects, run_id, name, file) for name, file in pairs]
        finally:
            for _, file in pairs:
                file.unlink(missing_ok=True)
        added = job.AddRunFiles(run_id=run_id, files=_a_set(files))
        self._run_request(run_id, added, job.RunFilesAdded)
        return True

    def _spooled(self, name: str) -> Path:
        """Only what lies in the spool itself is taken: a name is no path, a link leads elsewhere."""
        file = self._folders.spool / name
        if "/" in name or name in ("", ".", "..") or not stat.S_ISREG(os.lstat(file).st_mode):
            raise UserErrorException(f"{name[:100]!r} is no file of the spool.", target=name[:100])
        return file

    def _register_model(self, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """The files as they are now are saved under names of their content, so that the version never changes."""
        path = safe_relpath(str(request["path"]).removeprefix("./").rstrip("/"))
        parent = path.rpartition("/")[0]
        files: list[Artifact] = self._of_outputs(run_id, path) or self._uploaded(run_id, path)
        if not files:
            raise self._no_path(run_id, path)
        for file in files:
            file.path = file.path[len(parent) :].lstrip("/")
        asked = registration(run_id, request, _a_set(files), self._offer.spec.inputs)
        answers = (model_pb2.ModelVersionRegistered, model_pb2.ModelVersionRejected)

        def is_answer(_: bool, message: Any) -> bool:
            return isinstance(message, answers) and message.submission_id == asked.submission_id

        fact: Any = self._ask(MODELS, {asked.model: asked}, is_answer)[asked.model]
        if isinstance(fact, model_pb2.ModelVersionRejected):
            raise UserErrorException(fact.failure.message, code=fact.failure.code, target=fact.failure.target)
        return {"model": fact.model, "version": fact.version}

    def _local(self) -> dict[str, Path]:
        return dict(plain_files("outputs", self._folders.code / "outputs", []))

    def _of_outputs(self, run_id: str, path: str) -> list[Artifact]:
        chosen = [(name, file) for name, file in sorted(self._local().items()) if name == path or name.startswith(f"{path}/")]
        if len(chosen) > _FILES:
            what = f"{path!r} has {len(chosen)} files; a script registers {_FILES} at most."
            raise UserErrorException(f"{what} Register a folder with fewer files, or an archive of them.", target=path)
        return [put(self._objects, run_id, name, file, copy_to=self._folders.spool) for name, file in chosen]

    def _uploaded(self, run_id: str, path: str) -> list[Artifact]:
        facts = (fact for fact in self._facts(run_id) if isinstance(fact, job.RunFilesAdded))
        added: dict[str, Artifact] = {file.path: file for fact in facts for file in fact.files.files}
        return [added[name] for name in sorted(added) if name == path or name.startswith(f"{path}/")]

    def _no_path(self, run_id: str, path: str) -> TrainyardException:
        there = sorted({*self._local(), *self._view(run_id, {})["files"]})
        listed = ", ".join(there[:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "") or "none"
        return ModelPathNotFoundException(f"Run {run_id} has no file or folder {path!r} now; its files are: {listed}.", target=path)


def _a_set(files: list[Artifact]) -> ArtifactSet:
    by_path: dict[str, Artifact] = {file.path: file for file in files}
    return ArtifactSet(files=[by_path[path] for path in sorted(by_path)])
