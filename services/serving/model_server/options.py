"""The command line: tensorflow_model_server's flags, and those that it has not. Names may be written with - or _."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DRAIN_SECONDS = 10.0
BATCHING_FILE = "batching_params.pbtxt"
"""Of a version that says how it batches."""
TFLITE_FILE = "model.tflite"
VERSION = "trainyard-model-server"
# Flags of tensorflow_model_server that change nothing here: taken, so that a command line goes on working.
_WITHOUT_EFFECT = (
    "flush_filesystem_caches", "per_process_gpu_memory_fraction", "platform_config_file", "remove_unused_fields_from_bundle_metagraph",
    "enable_profiler", "enable_grpc_healthcheck_service", "xla_cpu_compilation_enabled", "num_tflite_pools", "num_unload_threads",
    "thread_pool_factory_config_file", "mixed_precision", "skip_initialize_tpu", "use_tflite_model", "tensorflow_session_config_file",
    "enable_forward_compat",
)  # fmt: skip
_REST_TIMEOUT_MS = 30_000


@dataclass(frozen=True)
class Options:
    model_name: str
    model_base_path: str
    cache: Path
    """For models that lie in an object store."""
    model_path: str
    version: int
    version_labels: Sequence[str]
    model_config_file: Path | None
    config_poll_seconds: float
    folder_poll_seconds: float
    load_threads: int
    load_retries: int
    load_retry_seconds: float
    lenient_labels: bool
    any_labels: bool
    host: str
    grpc_port: int
    grpc_socket: str
    grpc_threads: int
    grpc_arguments: Sequence[tuple[str, str | int]]
    rest_port: int | None
    """None: no REST."""
    rest_threads: int
    rest_seconds: float
    share_ports: bool
    rest_fd: int | None
    tls_file: Path | None
    rest_tls_file: Path | None
    key_file: str
    samples: str
    """Who may call; see services/serving/access.py. Empty: everybody."""
    drain_seconds: float
    parent_pid: int
    tags: Sequence[str]
    intra_threads: int
    inter_threads: int
    batching: bool
    batching_file: Path | None
    batching_of_models: bool
    warm_up: bool
    warm_up_iterations: int
    prefer_tflite: bool
    managed: bool
    interpreters: int
    check_method: bool
    as_content: bool
    allowed_operations: Sequence[str]
    monitoring_file: Path | None


def parse(arguments: Sequence[str] | None = None, description: str | None = None) -> Options:
    """Ends the process for a command line that makes no sense, as argparse does, with 2."""
    parser = argparse.ArgumentParser("trainyard-model-server", description=description, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_models(parser)
    _add_doors(parser)
    _add_running(parser)
    for name in _WITHOUT_EFFECT:
        _flag(parser, name, nargs="?", const="true", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.version == "":
        print(VERSION)
        raise SystemExit(0)
    for name in _WITHOUT_EFFECT:
        if getattr(told, name) is not None:
            print(f"--{name} has no effect here", flush=True)
    _check(parser, told)
    return _options(told)


def _check(parser: argparse.ArgumentParser, told: argparse.Namespace) -> None:
    sources = [bool(told.model_config_file), bool(told.model_base_path), bool(told.model_path)]
    if sum(sources) != 1:
        parser.error("exactly one of --model_config_file, --model_base_path and --model-path says what is served")
    if told.model_path and not told.version:
        parser.error("--model-path needs --version, the number that the version goes by")
    if told.version_label and not told.model_path:
        parser.error("--version_label needs --model-path; for several versions the file of models has labels")
    if told.batching_parameters_file and not told.enable_batching:
        parser.error("--batching_parameters_file needs --enable_batching")


def _flag(parser: argparse.ArgumentParser, *names: str, **more: Any) -> None:
    spellings = [f"--{spelling}" for name in names for spelling in dict.fromkeys((name, name.replace("_", "-")))]
    parser.add_argument(*spellings, dest=names[0], **more)


def _switch(parser: argparse.ArgumentParser, name: str, *, default: bool = False, help: str) -> None:  # noqa: A002 - argparse's word
    _flag(parser, name, nargs="?", const=True, default=default, type=_bool, metavar="true|false", help=help)


def _bool(word: str) -> bool:
    if word.lower() not in ("true", "false", "1", "0"):
        raise argparse.ArgumentTypeError(f"{word} is neither true nor false")
    return word.lower() in ("true", "1")


def _add_models(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "model_name", default="default", help="name of the only model")
    _flag(
        parser,
        "model_base_path",
        default="",
        help="folder with a folder for each version, named by its number; or s3://BUCKET/PREFIX likewise",
    )
    _flag(parser, "model_cache_dir", type=Path, default=default_cache(), help="where models of an object store are kept")
    _flag(parser, "model_path", default="", help="folder of the only version")
    _flag(parser, "version", nargs="?", const="", help="number of the only version; without a number: tells who this is")
    _flag(parser, "version_label", action="append", default=[], help="a label of the only version, as config files have them; repeatable")
    _flag(parser, "model_config_file", type=Path, help="several models: a tensorflow.serving.ModelServerConfig in text form")
    _flag(parser, "model_config_file_poll_wait_seconds", type=float, default=0, help="between two looks at that file; 0: one look")
    _flag(parser, "file_system_poll_wait_seconds", type=float, default=1, help="between two looks for versions; 0: one look")
    _flag(parser, "num_load_threads", type=int, default=0, help="versions that are loaded at the same time")
    _flag(parser, "max_num_load_retries", type=int, default=5, help="attempts after the first")
    _flag(parser, "load_retry_interval_micros", type=int, default=60_000_000)
    _switch(parser, "allow_version_labels_for_unavailable_models", help="a new label may point at a version that is not loaded yet")
    _switch(parser, "force_allow_any_version_labels_for_unavailable_models", help="the same, for labels that move as well")
    _flag(parser, "saved_model_tags", default="serve", help="which of a SavedModel's graphs, by its tags")
    _switch(parser, "prefer_tflite_model", help="where a version has a model.tflite as well")
    _switch(parser, "manage_models", default=True, help="callers may load and unload models, and replace the list of them")
    _flag(parser, "num_tflite_interpreters_per_pool", type=int, default=1, help="calls of a TFLite model at the same time")
    _flag(parser, "allowed_operations", default="", help="operations a graph may have beyond the list; any: no list")


def _add_doors(parser: argparse.ArgumentParser) -> None:
    _flag(parser, "host", default="127.0.0.1")
    _flag(parser, "port", "grpc_port", type=int, default=8500, help="gRPC; 0: chosen by the system")
    _flag(parser, "grpc_socket_path", default="", help="a Unix socket for gRPC beside the port")
    _flag(parser, "grpc_max_threads", type=int, default=8, help="calls at the same time; eight serve a core best (measured)")
    _flag(parser, "grpc_channel_arguments", default="", help="NAME=VALUE,...")
    _flag(parser, "rest_api_port", type=int, default=0, help="REST; 0: none")
    _flag(parser, "rest_port", type=int, help="REST; 0: chosen by the system")
    _flag(parser, "rest_api_num_threads", type=int, default=8, help="calls at the same time")
    _flag(parser, "rest_api_timeout_in_ms", type=int, default=_REST_TIMEOUT_MS)
    _flag(parser, "ssl_config_file", type=Path, help="TLS on gRPC: a tensorflow.serving.SSLConfig in text form")
    _flag(parser, "rest_api_ssl_config_file", type=Path, help="TLS on REST, likewise")
    _flag(
        parser,
        "key_file",
        default="",
        help="asks callers for a key or token: a file as the serving service writes it; empty: nobody is asked",
    )
    _flag(parser, "samples", default="", help="hands some calls to the request log: a folder of the serving service's; empty: none")
    _switch(parser, "share_ports", help="listen beside another server that shares its ports (SO_REUSEPORT)")
    _flag(
        parser, "rest_fd", type=int, help="REST on a socket that listens already: its descriptor, inherited from whoever starts the server"
    )
    _flag(parser, "monitoring_config_file", type=Path, help="another path for metrics: a tensorflow.serving.MonitoringConfig in text form")


def _add_running(parser: argparse.ArgumentParser) -> None:
    _switch(parser, "enable_batching", help="calls share runs of the graph")
    _flag(parser, "batching_parameters_file", type=Path, help="a tensorflow.serving.BatchingParameters in text form")
    _switch(parser, "enable_per_model_batching_parameters", help="batching_params.pbtxt in a version's folder counts for that one")
    _switch(parser, "enable_model_warmup", default=True, help="make the requests that came with a model before anybody else's")
    _flag(parser, "num_request_iterations_for_warmup", type=int, default=1)
    _switch(parser, "enable_signature_method_name_check", default=True, help="Classify and Regress want a signature made for them")
    _switch(parser, "enable_serialization_as_tensor_content", help="answer with tensor_content in place of typed values")
    _flag(parser, "tensorflow_session_parallelism", type=int, default=0, help="threads; 0: as TensorFlow chooses")
    _flag(parser, "tensorflow_intra_op_parallelism", type=int, default=0, help="threads within an operation")
    _flag(parser, "tensorflow_inter_op_parallelism", type=int, default=0, help="operations at the same time; 0: in the calling thread")
    _flag(parser, "drain_seconds", type=float, default=DRAIN_SECONDS, help="what calls under way have after TERM")
    _flag(parser, "parent_pid", type=int, default=0, help="the process to die with; 0: whoever started this one; -1: none")


def _options(told: argparse.Namespace) -> Options:
    return Options(
        model_name=told.model_name,
        model_base_path=_base_path(told.model_base_path),
        cache=told.model_cache_dir,
        model_path=told.model_path,
        version=int(told.version or 0),
        version_labels=told.version_label,
        model_config_file=told.model_config_file,
        config_poll_seconds=told.model_config_file_poll_wait_seconds,
        folder_poll_seconds=told.file_system_poll_wait_seconds,
        load_threads=told.num_load_threads,
        load_retries=told.max_num_load_retries,
        load_retry_seconds=told.load_retry_interval_micros / 1_000_000,
        lenient_labels=told.allow_version_labels_for_unavailable_models,
        any_labels=told.force_allow_any_version_labels_for_unavailable_models,
        host=told.host,
        grpc_port=told.port,
        grpc_socket=told.grpc_socket_path,
        grpc_threads=told.grpc_max_threads,
        grpc_arguments=_channel_arguments(told.grpc_channel_arguments),
        rest_port=told.rest_port if told.rest_port is not None else told.rest_api_port or (None if told.rest_fd is None else 0),
        rest_threads=told.rest_api_num_threads,
        rest_seconds=told.rest_api_timeout_in_ms / 1000,
        share_ports=told.share_ports,
        rest_fd=told.rest_fd,
        tls_file=told.ssl_config_file,
        rest_tls_file=told.rest_api_ssl_config_file,
        key_file=told.key_file,
        samples=told.samples,
        drain_seconds=told.drain_seconds,
        parent_pid=told.parent_pid,
        tags=told.saved_model_tags.split(","),
        intra_threads=told.tensorflow_intra_op_parallelism or told.tensorflow_session_parallelism,
        inter_threads=told.tensorflow_inter_op_parallelism or told.tensorflow_session_parallelism or -1,
        batching=told.enable_batching,
        batching_file=told.batching_parameters_file,
        batching_of_models=told.enable_per_model_batching_parameters,
        warm_up=told.enable_model_warmup,
        warm_up_iterations=told.num_request_iterations_for_warmup,
        prefer_tflite=told.prefer_tflite_model,
        managed=told.manage_models,
        interpreters=told.num_tflite_interpreters_per_pool,
        check_method=told.enable_signature_method_name_check,
        as_content=told.enable_serialization_as_tensor_content,
        allowed_operations=[word for word in told.allowed_operations.split(",") if word],
        monitoring_file=told.monitoring_config_file,
    )


def _base_path(told: str) -> str:
    return os.path.abspath(told) if told and not told.startswith("s3://") else told


def default_cache() -> Path:
    """Beside what the platform keeps for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard" / "served-models"


def _channel_arguments(told: str) -> list[tuple[str, str | int]]:
    pairs = [item.partition("=") for item in told.split(",") if item]
    return [(key, int(value) if value.lstrip("-").isdigit() else value) for key, _, value in pairs]
