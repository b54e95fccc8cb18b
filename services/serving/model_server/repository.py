"""All models of a process: looks at their folders, loads and unloads, and lends versions out.

A version that was lent is not unloaded before it was given back; a new one answers before the old one goes.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from services.serving.model_server.errors import NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE, UNKNOWN, ServeError, invalid
from services.serving.model_server.folders import Finder, found_versions
from services.serving.model_server.served import State, Statistics, VersionStatus
from services.serving.model_server.slots import Habits, Known, Loaded, Loader, Slot, available, status, why
from services.serving.model_server.versions import Load, ModelConfig, Standing, aspired, check_change, check_labels, steps

_ENDED_REMEMBERED = 32  # versions of a model whose end is still told
_CHANGE_SECONDS = 30.0  # what a change of the list waits for another one, unless its caller says how long


class Repository:
    """Models, and what TensorFlow Serving's own API asks beyond them."""

    def __init__(self, loader: Loader, habits: Habits = Habits(), find: Finder = found_versions) -> None:  # noqa: B008 - frozen
        self._loader = loader
        self._find = find
        self._habits = habits
        self._models: dict[str, Known] = {}
        self._lock = threading.Lock()  # the same as the condition's, without the cost of one: every call takes it twice
        self._changed = threading.Condition(self._lock)
        self._reloading = threading.Lock()
        self._loading = threading.Semaphore(max(habits.load_threads, 1))
        self._stopping = threading.Event()

    # -- the calls of the fronts

    def borrow(self, name: str, version: int | None = None, label: str = "") -> _Loan:
        return _Loan(self, name, version, label)

    def lend(self, name: str, version: int | None, label: str) -> Slot:
        with self._lock:
            slot = self._meant(name, version, label)
            slot.lent += 1
        return slot

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            slot.lent -= 1
            if slot.lent or slot.state is not State.UNLOADING:
                return
        threading.Thread(target=self._end, args=(slot,), name="unload", daemon=True).start()

    def _meant(self, name: str, version: int | None, label: str) -> Slot:
        if not name:
            raise invalid("ModelSpec has no name specified.")
        model = self._models.get(name)
        if label:
            version = self._labelled(model, label)
        if model is not None:
            slot = model.latest if version is None else model.slots.get(version)
            if slot is not None and slot.state is State.AVAILABLE:
                return slot
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise ServeError(NOT_FOUND, f"Servable not found for request: {wanted}")

    def _labelled(self, model: Known | None, label: str) -> int:
        if model is not None and model.labels is None:
            raise ServeError(UNAVAILABLE, f"the labels of model {model.config.name} are not known before it is loaded")
        if model is None or model.labels is None or label not in model.labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return model.labels[label]

    def names(self) -> list[str]:
        with self._changed:
            return sorted(name for name, model in self._models.items() if not model.gone)

    def versions(self, name: str) -> list[VersionStatus]:
        with self._changed:
            model = self._models.get(name)
            slots = sorted(model.slots.values(), key=lambda it: it.version, reverse=True) if model else []
        if not slots:
            raise ServeError(NOT_FOUND, f"Could not find any versions of model {name}")
        return [status(slot) for slot in slots]

    def version_of(self, name: str, label: str) -> int:
        """Raises INVALID_ARGUMENT where there is no such label."""
        with self._changed:
            return self._labelled(self._models.get(name), label)

    def statistics(self, name: str, version: int | None = None) -> list[Statistics]:
        with self._changed:
            slots = list(self._models[name].slots.values()) if name in self._models else []
            here = [it.loaded for it in slots if it.state is State.AVAILABLE and version in (None, it.version) and it.loaded]
        if not here:
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServeError(NOT_FOUND, f"Servable not found for request: {wanted}")
        return [it.statistics() for it in sorted(here, key=lambda it: it.version)]

    def loaded(self) -> list[Loaded]:
        """Every version that answers."""
        with self._changed:
            return [
                it.loaded
                for _, model in sorted(self._models.items())
                for it in model.slots.values()
                if it.loaded and it.state is State.AVAILABLE
            ]

    def under_way(self) -> int:
        """Calls that have a version and have not given it back yet."""
        with self._changed:
            return sum(slot.lent for model in self._models.values() for slot in model.slots.values())

    def is_ready(self) -> bool:
        with self._changed:
            return all(model.is_ready() for model in self._models.values() if not model.gone)

    # -- what is to be served

    def start(self, configs: Sequence[ModelConfig]) -> None:
        """Looks and begins to load; returns at once."""
        check_change({}, configs)
        with self._changed:
            self._models = {config.name: Known(config) for config in configs}
        self._look(self.names(), hasty=True)
        if self._habits.poll_seconds > 0:
            threading.Thread(target=self._poll, name="poll", daemon=True).start()

    def wait(self) -> None:
        """Until all models answer. Raises UNKNOWN where one never will, and FAILED_PRECONDITION for a label that points nowhere."""
        names = self.names()
        if bad := self._await(names, None, by_request=False):
            raise ServeError(UNKNOWN, "; ".join(map(why, bad)))
        with self._changed:
            for name in names:
                model = self._models[name]
                check_labels(model.config, {}, available(model), self._habits.labels)
                model.labels = model.config.labels

    def reload(self, configs: Sequence[ModelConfig], deadline: float | None = None) -> None:
        """The new list in place of the old one; waits for models that are new. `deadline`: by time.monotonic()."""
        self._check_managed()
        with self._one_change(deadline):
            with self._changed:
                old = {name: model for name, model in self._models.items() if not model.gone}
                check_change({name: model.config for name, model in old.items()}, configs)
                for config in configs:
                    known = self._models.get(config.name)
                    labels, here = (known.labels or {}, available(known)) if known else ({}, frozenset[int]())
                    check_labels(config, labels, here, self._habits.labels)
                for name in old.keys() - {config.name for config in configs}:
                    self._models[name].gone = True
                for config in configs:
                    model = self._models.setdefault(config.name, Known(config))
                    model.config, model.gone, model.withdrawn, model.labels = config, False, False, config.labels
                everything = list(self._models)
            self._look(everything, hasty=True)
            bad = self._await([config.name for config in configs if config.name not in old], deadline, by_request=True)
            if bad:
                told = ", ".join(f"{{{model.config.name}: {why(model)}}}" for model in bad)
                raise ServeError(UNKNOWN, f"{len(bad)} model(s) did not become available: {told}")

    def load(self, name: str) -> None:
        """One attempt is waited for; those that follow a failure are made without the caller."""
        self._check_managed()
        with self._changed:
            model = self._listed(name)
            model.withdrawn = False
            for slot in model.slots.values():
                slot.given_up, slot.hurried = False, slot.state is State.LOADING and slot.error is not None
            self._changed.notify_all()
        self._look([name], hasty=True)
        bad = self._await([name], None, by_request=True)
        with self._changed:
            failed = any(slot.failed for version, slot in model.slots.items() if version in model.wanted)
        if bad or failed:
            raise ServeError(UNKNOWN, why(model))

    def unload(self, name: str) -> None:
        self._check_managed()
        with self._changed:
            self._listed(name).withdrawn = True
        self._look([name], hasty=True)

    @contextmanager
    def _one_change(self, deadline: float | None) -> Iterator[None]:
        """Of the list of models at a time. Raises UNAVAILABLE where another one takes too long."""
        patience = _CHANGE_SECONDS if deadline is None else max(deadline - time.monotonic(), 0)
        if not self._reloading.acquire(timeout=patience):
            raise ServeError(UNAVAILABLE, "another change of the list of models is under way, and waits for a model; try again")
        try:
            yield
        finally:
            self._reloading.release()

    def _check_managed(self) -> None:
        if not self._habits.managed:
            raise ServeError(PERMISSION_DENIED, "this server serves what was deployed: change that by Webservice.update, or delete it")

    def _listed(self, name: str) -> Known:
        model = self._models.get(name)
        if model is None or model.gone:
            listed = ", ".join(sorted(it for it, known in self._models.items() if not known.gone))
            raise ServeError(NOT_FOUND, f"model {name} is not in the list of models, which has {listed or 'none'}")
        return model

    def stop(self) -> None:
        """No more looks and no more attempts."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    # -- looking and deciding

    def _poll(self) -> None:
        while not self._stopping.wait(self._habits.poll_seconds):
            with self._changed:
                names = [name for name, model in self._models.items() if not model.gone]
            self._look(names, hasty=False)

    def _look(self, names: Iterable[str], *, hasty: bool) -> None:
        """Hastily: without waiting for a newcomer's files to come to rest."""
        for name in names:
            with self._changed:
                model = self._models[name]
                config, seen, off = model.config, model.seen, model.gone or model.withdrawn
            try:
                found = {} if off else self._find(config)
            except OSError as error:
                self._say_missing(model, f"cannot look for versions of {name}: {error}")
                continue
            with self._changed:
                if model.config is not config or off != (model.gone or model.withdrawn):
                    continue  # it was changed meanwhile, and whoever did that looks too
                model.missing = "" if found or off else f"no versions of {name} under {config.base_path}"
                model.seen = {version: print_ for version, (_, print_) in found.items()}
                resting = {
                    version for version, (_, print_) in found.items() if hasty or version in model.slots or seen.get(version) == print_
                }
                if found and not resting:
                    continue  # the next version's files come just now: what is loaded stays until they are at rest
                model.wanted = aspired(config.policy, resting)
                for version in model.slots.keys() - model.wanted:
                    model.slots[version].given_up = False
                self._decide(model, {version: path for version, (path, _) in found.items()})

    def _say_missing(self, model: Known, reason: str) -> None:
        """What is loaded stays: a folder that cannot be read is no wish to unload."""
        with self._changed:
            told, model.missing = model.missing, reason
            self._changed.notify_all()
        if told != reason:
            _say(reason)

    def _decide(self, model: Known, paths: Mapping[int, str]) -> None:
        """Under the lock."""
        standings = {version: Standing(slot.state, slot.given_up) for version, slot in model.slots.items()}
        for step in steps(model.wanted, standings):
            if isinstance(step, Load):
                slot = model.slots[step.version] = Slot(model, step.version, paths[step.version])
                threading.Thread(target=self._load, args=(slot,), name="load", daemon=True).start()
                continue
            slot = model.slots[step.version]
            slot.state = State.UNLOADING
            if not slot.lent:
                threading.Thread(target=self._end, args=(slot,), name="unload", daemon=True).start()
        here = available(model)
        model.latest = model.slots[max(here)] if here else None
        ended = sorted(version for version, it in model.slots.items() if it.state is State.END and version not in model.wanted)
        for version in ended[:-_ENDED_REMEMBERED]:
            del model.slots[version]
        self._changed.notify_all()

    def _decide_again(self, model: Known) -> None:
        self._decide(model, {slot.version: slot.path for slot in model.slots.values()})

    # -- loading and unloading, in threads of their own

    def _load(self, slot: Slot) -> None:
        model = slot.model
        name = model.config.name
        for attempt in range(self._habits.retries + 1):
            if attempt and not self._rest(slot):
                break
            with self._loading:
                self._become(slot, State.LOADING)
                begin = time.monotonic()
                try:
                    loaded = self._loader(model.config, slot.version, slot.path)
                except Exception as error:
                    traceback.print_exc(file=sys.stderr)
                    reason = " ".join(str(error).split())
                    code = error.code if isinstance(error, ServeError) else UNKNOWN
                    self._missed(slot, ServeError(code, f"cannot load {slot.path}: {type(error).__name__}: {reason}"))
                else:
                    _say(f"loaded {name} {slot.version} in {time.monotonic() - begin:.1f} s")
                    self._arrived(slot, loaded)
                    return
        self._failed(slot)

    def _become(self, slot: Slot, state: State) -> None:
        with self._changed:
            slot.state = state
            self._changed.notify_all()

    def _missed(self, slot: Slot, error: ServeError) -> None:
        _say(error.message)
        with self._changed:
            slot.error, slot.hurried = error, False
            self._changed.notify_all()

    def _rest(self, slot: Slot) -> bool:
        """Between two attempts, unless somebody asks for the next one. Whether it is to be made."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping.is_set() or slot.hurried, self._habits.retry_seconds)
            return not self._stopping.is_set() and slot.version in slot.model.wanted

    def _arrived(self, slot: Slot, loaded: Loaded) -> None:
        with self._changed:
            slot.loaded, slot.error, slot.state = loaded, None, State.AVAILABLE
            self._decide_again(slot.model)

    def _failed(self, slot: Slot) -> None:
        with self._changed:
            slot.state, slot.given_up = State.END, slot.version in slot.model.wanted
            self._decide_again(slot.model)

    def _end(self, slot: Slot) -> None:
        loaded, slot.loaded = slot.loaded, None
        try:
            if loaded is not None:
                name = loaded.name
                loaded.close()
                _say(f"unloaded {name} {slot.version}")
        finally:
            with self._changed:
                slot.state = State.END
                self._decide_again(slot.model)

    # -- waiting

    def _await(self, names: Sequence[str], deadline: float | None, *, by_request: bool) -> list[Known]:
        """Until they answer or never will: those that do not. By request a folder without a version is an answer too, and so is a first
        attempt that failed: a caller's thread waits for no more."""

        def settled() -> bool:
            return self._stopping.is_set() or all(
                model.settled(patient=not by_request) and (model.wanted or (by_request and model.missing)) or model.gone or model.withdrawn
                for model in models
            )

        with self._changed:
            models = [self._models[name] for name in names]
            self._changed.wait_for(settled, None if deadline is None else max(deadline - time.monotonic(), 0))
            return [model for model in models if not (model.is_ready() or model.gone or self._stopping.is_set())]


class _Loan:
    """`with repository.borrow(...) as served`. A class: a generator would cost each call a microsecond."""

    __slots__ = ("_asked", "_repository", "_slot")

    def __init__(self, repository: Repository, name: str, version: int | None, label: str) -> None:
        self._repository = repository
        self._asked = name, version, label

    def __enter__(self) -> Loaded:
        self._slot = self._repository.lend(*self._asked)
        assert self._slot.loaded is not None
        return self._slot.loaded

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._repository.give_back(self._slot)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
