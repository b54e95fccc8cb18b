"""Serves TensorFlow models over gRPC and REST, in the models' own environment: TensorFlow, NumPy, grpcio and protobuf are all it needs.

Takes tensorflow_model_server's flags. What is served: one model (--model_base_path), several (--model_config_file), or one version
(--model-path and --version). Ports of 0 are chosen by the system. One JSON line on standard output says that it is ready, and where:
`{"ready": true, "signatures": [...], "grpc_port": 1, "rest_port": 2}`. TERM drains it: no new calls, and time for those under way.
Exit codes: 0 drained, 2 an option or a file of options makes no sense, 3 a model cannot be loaded, 4 a port is taken; the last line on
standard error says why.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.parent import die_with
from services.serving.model_server import options as command_line
from services.serving.model_server.options import Options

if TYPE_CHECKING:
    from services.serving.model_server.config_files import ConfigFile
    from services.serving.model_server.repository import Repository
    from services.serving.model_server.sources import Sources
    from services.serving.model_server.versions import ModelConfig
    from services.serving.model_server.wire import Wire
    from services.serving.sampling.sampler import Sampler

BAD_OPTIONS, LOAD_ERROR, PORT_TAKEN = 2, 3, 4


def main() -> int:
    options = command_line.parse(description=__doc__)
    die_with(options.parent_pid)
    from services.serving.model_server.config_files import BadConfig
    from services.serving.model_server.errors import ServeError

    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    try:
        return _serve(options, stopped)
    except BadConfig as error:
        return _last_words(BAD_OPTIONS, str(error))
    except ServeError as error:
        return _last_words(LOAD_ERROR, error.message)
    except OSError as error:
        return _last_words(PORT_TAKEN, f"cannot listen: {error}")


def _last_words(code: int, why: str) -> int:
    print(why, file=sys.stderr, flush=True)
    return code


def _serve(options: Options, stopped: threading.Event) -> int:
    """Until TERM. Raises BadConfig, ServeError for a model that cannot be loaded, and OSError if a port is taken."""
    from services.serving.model_server.config_files import ConfigFile
    from services.serving.model_server.minio_store import store_from
    from services.serving.model_server.sources import Sources
    from services.serving.model_server.wire import Wire
    from services.serving.sampling.sampler import Sampler

    wire, ready = Wire(), threading.Event()
    file = ConfigFile(options.model_config_file, wire) if options.model_config_file else None
    sources = Sources(options.cache, lambda: store_from(os.environ))
    models = _models(options, file)
    sources.check(models)
    repository = _repository(options, wire, sources)
    # Whoever shares its ports takes no calls before it can answer them; whoever has them for itself can be asked how far it is.
    shares = options.share_ports or options.rest_fd is not None
    sampler = Sampler(options.samples)
    doors = None if shares else _open(repository, options, wire, ready, sampler)
    repository.start(models)
    waiting = threading.Thread(target=_wait, args=(repository, loaded := _Outcome(), stopped), daemon=True)
    waiting.start()
    while waiting.is_alive() and not stopped.is_set():
        waiting.join(0.1)
    if loaded.error is not None and not stopped.is_set():
        raise loaded.error
    if not stopped.is_set():
        doors = doors or _open(repository, options, wire, ready, sampler)
        ready.set()
        print(json.dumps(_told(repository, options, doors)), flush=True)
    if file and options.config_poll_seconds > 0:
        threading.Thread(target=_reread, args=(file, repository, options, stopped), daemon=True).start()
    # A signal may reach a thread that is being made just then, which wakes nobody: the main thread has to look by itself.
    while not stopped.wait(0.2):
        continue
    ready.clear()
    repository.stop()
    if doors is not None:
        doors.drain(options.drain_seconds)
    sampler.close()
    return 0


@dataclass
class _Outcome:
    error: BaseException | None = None


def _wait(repository: Repository, outcome: _Outcome, stopped: threading.Event) -> None:
    """In a thread, so that TERM is heard meanwhile."""
    try:
        repository.wait()
    except Exception as error:
        outcome.error = error


def _repository(options: Options, wire: Wire, sources: Sources) -> Repository:
    from services.serving.model_server.batching import BatchingParameters
    from services.serving.model_server.config_files import read_batching
    from services.serving.model_server.repository import Repository
    from services.serving.model_server.slots import Habits
    from services.serving.model_server.versions import Labels

    batching = None
    if options.batching:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        batching = read_batching(options.batching_file, wire) if options.batching_file else BatchingParameters(num_batch_threads=cores)
    from services.serving.model_server.loading import Loading, Manner
    from services.serving.model_server.saved_model import Threads

    manner = Manner(
        tags=options.tags,
        threads=Threads(options.intra_threads, options.inter_threads),
        prefer_tflite=options.prefer_tflite,
        interpreters=options.interpreters,
        warm_up=options.warm_up,
        warm_up_iterations=options.warm_up_iterations,
        batching=batching,
        batching_of_models=options.batching_of_models,
        allowed_operations=options.allowed_operations,
    )
    habits = Habits(
        poll_seconds=0 if options.model_path else options.folder_poll_seconds,
        load_threads=options.load_threads,
        retries=0 if options.model_path else options.load_retries,
        retry_seconds=options.load_retry_seconds,
        managed=options.managed,
        labels=Labels.ANY if options.any_labels else Labels.NEW if options.lenient_labels else Labels.LOADED,
    )
    return Repository(Loading(wire, manner, sources.held), habits, sources.versions)


def _models(options: Options, file: ConfigFile | None) -> list[ModelConfig]:
    from services.serving.model_server.versions import ModelConfig

    if file is not None:
        return list(file.changed() or ())
    if options.model_path:
        labels = dict.fromkeys(options.version_labels, options.version)
        return [ModelConfig(options.model_name, options.model_path, labels=labels, fixed={options.version: options.model_path})]
    return [ModelConfig(options.model_name, options.model_base_path)]


def _open(repository: Repository, options: Options, wire: Wire, ready: threading.Event, sampler: Sampler) -> _Doors:
    """Opens the ports. A protocol is added here: its services to gRPC, and its first word of the path to REST."""
    from services.serving.access import Access
    from services.serving.model_server import (
        grpc_front,
        grpc_handover,
        grpc_serving,
        guarded,
        rest_front,
        rest_serving,
        sampled,
        v2_grpc,
        v2_rest,
    )
    from services.serving.model_server.config_files import read_metrics_path, read_tls
    from services.serving.model_server.metrics import Metrics
    from services.serving.model_server.serving_calls import Calls

    def is_ready() -> bool:
        return ready.is_set() and repository.is_ready()

    metrics = Metrics(repository.loaded, is_ready, repository.under_way)
    calls = Calls(repository, wire, check_method=options.check_method, as_content=options.as_content)
    metrics_path = read_metrics_path(options.monitoring_file, wire) if options.monitoring_file else ""
    routes: dict[str, rest_front.Route] = {
        "": rest_serving.about_the_server(repository, is_ready, lambda: metrics.text() + sampler.metrics(), metrics_path),
        "v1": rest_serving.ServingRoute(repository, calls, wire, metrics.observe, options.rest_seconds),
        "v2": v2_rest.InferenceRoute(repository, is_ready, metrics.observe, options.rest_seconds),
    }
    streamed = sampled.streamed(sampler) if options.samples else None
    services = [
        *grpc_serving.services(calls, wire, metrics.observe),
        v2_grpc.service(repository, wire, is_ready, metrics.observe, streamed),
    ]
    if options.samples:
        routes = {word: sampled.route(route, sampler) if word else route for word, route in routes.items()}
        services = [sampled.service(service, sampler) for service in services]
    guards: list[guarded.GrpcDoor] = []
    if options.key_file:
        access = Access(options.key_file)
        guards = [guarded.GrpcDoor(access)]
        routes = {word: route if not word else guarded.route(route, access) for word, route in routes.items()}
    rest = None
    if options.rest_port is not None:
        rest_tls = read_tls(options.rest_tls_file, wire) if options.rest_tls_file else None
        rest = rest_front.RestServer(
            routes,
            options.host,
            options.rest_port,
            share=options.share_ports,
            listening=options.rest_fd,
            calls_at_once=options.rest_threads,
            tls=rest_tls,
        )
    tls = read_tls(options.tls_file, wire) if options.tls_file else None
    arguments = grpc_handover.with_age(options.grpc_arguments) if options.share_ports else options.grpc_arguments
    door = grpc_front.Door(
        options.host, options.grpc_port, options.grpc_socket, options.share_ports, options.grpc_threads, arguments, tls, guards
    )
    rpc, grpc_port = grpc_front.start(services, wire, door, is_ready)
    return _Doors(rpc, grpc_port, rest, grpc_handover.age_of(arguments))


@dataclass
class _Doors:
    rpc: Any
    grpc_port: int
    rest: Any
    age_seconds: float
    """Of gRPC's connections; 0: they stay."""

    def drain(self, seconds: float) -> None:
        """REST meanwhile: its callers leave at once."""
        draining = threading.Thread(target=self._drain_grpc, args=(seconds,))
        draining.start()
        if self.rest is not None:
            self.rest.drain(seconds)
        draining.join()

    def _drain_grpc(self, seconds: float) -> None:
        from services.serving.model_server import grpc_handover

        grpc_handover.hand_over(self.grpc_port, self.age_seconds)
        self.rpc.stop(seconds).wait()


def _told(repository: Repository, options: Options, doors: _Doors) -> dict[str, Any]:
    told: dict[str, Any] = {"ready": True, "grpc_port": doors.grpc_port}
    if doors.rest is not None:
        told["rest_port"] = doors.rest.server_port
    names = repository.names()
    if len(names) == 1:
        with repository.borrow(names[0]) as model:
            told["signatures"] = sorted(model.signatures)
    told["models"] = names
    return told


def _reread(file: ConfigFile, repository: Repository, options: Options, stopped: threading.Event) -> None:
    """What is served stays where the file makes no sense, or cannot be followed."""
    from services.serving.model_server.config_files import BadConfig
    from services.serving.model_server.errors import ServeError

    while not stopped.wait(options.config_poll_seconds):
        try:
            configs = file.changed()
            if configs is not None:
                repository.reload(configs)
        except (BadConfig, ServeError) as error:
            print(f"{options.model_config_file}: what is served stays as it is: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # TensorFlow's threads need no farewell
