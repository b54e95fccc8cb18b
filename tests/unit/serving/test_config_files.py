"""TensorFlow Serving's configuration files and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.serving.model_server import options
from services.serving.model_server.batching import BatchingParameters
from services.serving.model_server.config_files import (
    BadConfig,
    ConfigFile,
    read_batching,
    read_metrics_path,
    read_models,
    read_tls,
)
from services.serving.model_server.errors import ServeError
from services.serving.model_server.versions import All, Latest, ModelConfig, Specific
from services.serving.model_server.wire import Wire

WIRE = Wire()
_MODELS = """
model_config_list {
  config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }
  config {
    name: 'b', base_path: '/models/b', model_type: TENSORFLOW
    model_version_policy: { specific { versions: 1 versions: 3 } }
    version_labels { key: 'stable' value: 1 }
    version_labels { key: 'canary' value: 3 }
    logging_config {
      log_collector_config { type: "" filename_prefix: "x" }
      sampling_config { sampling_rate: 0.1 attributes: 3 per_task_sampling_configs { dc: "a" task_index: 0 sampling_rate: 1 } }
      custom_logging_config { type_url: "type.googleapis.com/of.somebody.Else" value: "x" }
    }
  }
  config { name: "c" base_path: "/models/c" model_platform: "tensorflow" model_version_policy { all {} } }
  config { name: "d" base_path: "/models/d" model_platform: "tensorflow" model_version_policy { latest { num_versions: 2 } } }
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.config"


def test_models_have_policies_and_labels(file: Path) -> None:
    file.write_text(_MODELS)

    assert read_models(file, WIRE) == [
        ModelConfig("a", "/models/a"),
        ModelConfig("b", "/models/b", policy=Specific(frozenset({1, 3})), labels={"stable": 1, "canary": 3}),
        ModelConfig("c", "/models/c", policy=All()),
        ModelConfig("d", "/models/d", policy=Latest(2)),
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model_config_list { config { nome: 'a' } }", "Error parsing text-format tensorflow.serving.ModelServerConfig: .*1:30.*nome"),
        ("{", "Error parsing text-format"),
        ('custom_model_config { type_url: "x" }', "only a model_config_list"),
    ],
)
def test_a_list_that_makes_no_sense_is_named_with_its_place(file: Path, text: str, error: str) -> None:
    file.write_text(text)

    with pytest.raises(BadConfig, match=error):
        read_models(file, WIRE)


@pytest.mark.parametrize(
    ("platform", "error"),
    [
        ("", "neither"),
        ('model_type: TENSORFLOW model_platform: "tensorflow"', "both"),
        ('model_platform: "onnx"', "unsupported platform onnx"),
    ],
)
def test_a_model_has_one_platform(file: Path, platform: str, error: str) -> None:
    file.write_text(f'model_config_list {{ config {{ name: "a" base_path: "/a" {platform} }} }}')

    with pytest.raises(ServeError, match=error):
        read_models(file, WIRE)


def test_a_file_is_told_once_for_each_content(file: Path) -> None:
    file.write_text(_MODELS)
    watched = ConfigFile(file, WIRE)

    assert len(watched.changed() or ()) == 4
    assert watched.changed() is None
    file.write_text("nonsense")
    with pytest.raises(BadConfig):
        watched.changed()
    assert watched.changed() is None
    file.write_text('model_config_list { config { name: "a" base_path: "/models/a" model_platform: "tensorflow" } }')
    assert watched.changed() == [ModelConfig("a", "/models/a")]
    file.unlink()
    with pytest.raises(BadConfig, match="cannot read"):
        watched.changed()


def test_batching_has_tensorflow_servings_parameters_and_defaults(file: Path) -> None:
    file.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 } max_enqueued_batches { value: 7 } num_batch_threads { value: 2 } "
        'thread_pool_name { value: "pool" } allowed_batch_sizes: 8 allowed_batch_sizes: 32 pad_variable_length_inputs: true'
    )
    assert read_batching(file, WIRE) == BatchingParameters(32, 1000, 7, 2, (8, 32), True)

    file.write_text("")
    assert read_batching(file, WIRE) == BatchingParameters()

    file.write_text("max_batch_size { value: 32 } allowed_batch_sizes: 8")
    with pytest.raises(BadConfig, match="allowed_batch_sizes"):
        read_batching(file, WIRE)


def test_batching_cuts_large_calls_where_the_file_says_so(file: Path) -> None:
    file.write_text(
        "max_batch_size { value: 32 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 } "
        "allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    )
    told = read_batching(file, WIRE)
    assert (told.max_batch_size, told.rows_of_a_run, told.allowed_batch_sizes) == (32, 8, (4, 8))

    file.write_text("max_batch_size { value: 32 } max_execution_batch_size { value: 8 }")
    assert read_batching(file, WIRE).rows_of_a_run == 32, "without splitting it has no effect"
    for text, error in [
        ("max_batch_size { value: 4 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }", "between 1 and"),
        ("enable_large_batch_splitting { value: true } max_execution_batch_size { value: -1 }", "between 1 and"),
        (
            "max_batch_size { value: 9 } enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 } "
            "allowed_batch_sizes: 9",
            "end with max_execution_batch_size 8",
        ),
    ]:
        file.write_text(text)
        with pytest.raises(BadConfig, match=error):
            read_batching(file, WIRE)


def test_priorities_of_calls_are_passed_over_and_said_to_be(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("max_batch_size { value: 8 }\nmixed_priority_batching_policy: PRIORITY_MERGE\nlow_priority_max_batch_size { value: 2 }")

    assert read_batching(file, WIRE).max_batch_size == 8
    told = capsys.readouterr().out
    assert (
        told == f"{file}: low_priority_max_batch_size, mixed_priority_batching_policy: no effect here, all calls have the same priority\n"
    )
    file.write_text("max_bach_size { value: 8 }\nmixed_priority_batching_policy: PRIORITY_MERGE")
    with pytest.raises(BadConfig, match="1:1.*max_bach_size"):
        read_batching(file, WIRE)


def test_metrics_are_told_where_the_file_says(file: Path) -> None:
    for text, path in [
        ("", ""),
        ("prometheus_config { enable: false path: '/x' }", ""),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: true path: '/x' }", "/x"),
    ]:
        file.write_text(text)
        assert read_metrics_path(file, WIRE) == path
    file.write_text("prometheus_config { enable: true path: 'x' }")
    with pytest.raises(BadConfig, match="does not begin with /"):
        read_metrics_path(file, WIRE)


@pytest.mark.parametrize(
    ("text", "error"), [("", "both needed"), ("server_key: 'k' server_cert: 'c' client_verify: true", "client_verify needs custom_ca")]
)
def test_tls_needs_a_key_a_certificate_and_whom_to_trust(file: Path, text: str, error: str) -> None:
    file.write_text(text)

    with pytest.raises(BadConfig, match=error):
        read_tls(file, WIRE)


# -- flags


def test_the_flags_of_tensorflow_model_server_are_understood() -> None:
    told = options.parse(
        [
            "--port=8500",
            "--rest_api_port=8501",
            "--model_name=half",
            "--model_base_path=/models/half",
            "--enable_batching",
            "--rest_api_timeout_in_ms=500",
            "--file_system_poll_wait_seconds=0",
            "--prefer_tflite_model=true",
            "--enable_model_warmup=false",
            "--tensorflow_intra_op_parallelism=2",
            "--load_retry_interval_micros=1000",
            "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=x",
            "--flush_filesystem_caches=false",
        ]
    )

    assert (told.grpc_port, told.rest_port, told.model_name, told.model_base_path) == (8500, 8501, "half", "/models/half")
    assert (told.batching, told.prefer_tflite, told.warm_up, told.rest_seconds) == (True, True, False, 0.5)
    assert (told.intra_threads, told.inter_threads, told.load_retry_seconds, told.folder_poll_seconds) == (2, -1, 0.001, 0)
    assert list(told.grpc_arguments) == [("grpc.max_connection_age_ms", 2000), ("grpc.lb_policy_name", "x")]


def test_without_a_port_for_rest_there_is_none_and_0_is_chosen_by_the_system() -> None:
    assert options.parse(["--model_base_path=/a"]).rest_port is None
    assert options.parse(["--model_base_path=/a", "--rest_api_port=0"]).rest_port is None
    assert options.parse(["--model_base_path=/a", "--rest-port=0"]).rest_port == 0


def test_the_only_version_has_the_labels_that_are_given() -> None:
    told = options.parse(["--model-path=/a", "--version=3", "--version-label=champion", "--version_label=stable"])

    assert told.version_labels == ["champion", "stable"]
    assert options.parse(["--model-path=/a", "--version=3"]).version_labels == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("", "exactly one of"),
        ("--model_base_path=/a --model_config_file=/b", "exactly one of"),
        ("--model-path=/a", "--model-path needs --version"),
        ("--model_base_path=/a --batching_parameters_file=/b", "needs --enable_batching"),
        ("--model_base_path=/a --enable_batching=perhaps", "neither true nor false"),
        ("--model_base_path=/a --no_such_flag", "unrecognized arguments"),
        ("--model_base_path=/a --version-label=champion", "--version_label needs --model-path"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(words: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options.parse(words.split())

    assert caught.value.code == 2
    assert error in capsys.readouterr().err
