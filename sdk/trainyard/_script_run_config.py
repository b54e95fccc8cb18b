"""ScriptRunConfig: a folder, a script or a command in it, and where and in what environment it runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._arguments import from_list
from trainyard._environment import Environment
from trainyard._errors import TrainingException
from trainyard._run_configuration import DockerConfiguration, RunConfiguration, as_messages
from trainyard._script_source import checked_folder, checked_script

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard._resource_configuration import ResourceConfiguration
    from trainyard.job.v1.spec_pb2 import RunSpec

_DEFAULT_SECONDS = 2_592_000
_SHELL = frozenset("&|;<>()")


class ScriptRunConfig:
    """`script` with `arguments`, or `command`: a list of words, or a text that is split into words as a shell would, and run without one.

    Words may be numbers, dataset inputs and references to data. `compute_target` None or "local" is this machine.
    `max_run_duration_seconds` ends the script (30 days by default). What is set on `run_config` afterwards counts.
    `distributed_job_config`: MpiConfiguration or TensorflowConfiguration; the nodes of the latter are `run_config.node_count`.
    `resume_from`: a run, whose last checkpoint the script finds in its checkpoint folder; or an earlier run's outputs as a DataPath, which
    are mounted and named by `--resume-from`. The keyword-only options are RunConfiguration's.
    Raises TrainingException or UserErrorException with the parameter at fault.
    """

    def __init__(
        self,
        source_directory: str | Path,
        script: str | None = None,
        arguments: Sequence[Any] | None = None,
        run_config: RunConfiguration | None = None,
        compute_target: ComputeTarget | str | None = None,
        environment: Environment | None = None,
        distributed_job_config: Any = None,
        resume_from: Any = None,
        max_run_duration_seconds: float | None = None,
        command: Sequence[Any] | str | None = None,
        docker_runtime_config: DockerConfiguration | None = None,
        *,
        resources: ResourceConfiguration | None = None,
        priority: int | None = None,
        user: str | None = None,
        max_restarts: int | None = None,
        checkpoint_folder: str | None = None,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        spread: bool | None = None,
    ) -> None:
        if run_config is not None:
            for name, value in (("compute_target", compute_target), ("environment", environment), ("command", command)):
                if value is not None:
                    raise TrainingException(
                        f"{name} is given beside run_config, which has its own.", target=name, hint=f"set run_config's {name}"
                    )
        self.run_config = run_config if run_config is not None else RunConfiguration()
        self.source_directory = checked_folder(source_directory)
        self.script = script or self.run_config.script
        from_list(arguments)
        self.arguments = list(arguments if arguments is not None else self.run_config.arguments)
        self.command = command if command is not None else self.run_config.command
        self.distributed_job_config = distributed_job_config
        self.resume_from = resume_from
        if compute_target is not None:
            self.run_config.target = compute_target
        if environment is not None:
            self.run_config.environment = environment
        if docker_runtime_config is not None:
            self.run_config.docker = docker_runtime_config
        self.max_run_duration_seconds = max_run_duration_seconds
        self.run_config._take(
            resources=resources, priority=priority, user=user, max_restarts=max_restarts,
            checkpoint_folder=checkpoint_folder, labels=labels, spread=spread,
        )  # fmt: skip
        self._check()

    def _check(self) -> None:
        if self.command is not None:
            if self.script or self.arguments:
                raise TrainingException("command excludes script and arguments.", target="command", hint="write them into the command")
            if not words_of(self.command):
                raise TrainingException("The command is empty.", target="command")
            return
        self.script = checked_script(self.source_directory, self.script, "script")

    def _to_spec(self) -> RunSpec:
        """All of the run but its source."""
        given = from_list(words_of(self.command) if self.command is not None else self.arguments)
        if self.resume_from is not None:
            given.add_resume(self.resume_from)
        seconds = self.max_run_duration_seconds
        if seconds is None:
            seconds = self.run_config.max_run_duration_seconds
        spec = self.run_config._to_spec(
            given, distributed=self.distributed_job_config, max_seconds=_DEFAULT_SECONDS if seconds is None else seconds
        )
        words = given.resolved()
        if self.command is None:
            spec.entry_script = self.script or ""
            spec.arguments.extend(as_messages(words))
        else:
            spec.command.extend(f"${{{text}}}" if is_input else text for is_input, text in words)
        return spec


def words_of(command: Sequence[Any] | str) -> list[Any]:
    """Of a text: split as a shell would. Raises TrainingException for what only a shell understands."""
    if not isinstance(command, str):
        return list(command)
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise TrainingException(f"The command {command[:200]!r} cannot be split into words: {error}.", target="command") from error
    for word in words:
        if word and set(word) <= _SHELL:
            raise TrainingException(
                f"The command has {word!r}, which only a shell understands, and no shell reads a command.",
                target="command",
                hint="name one: command=['bash', '-c', '...']",
            )
    return words
