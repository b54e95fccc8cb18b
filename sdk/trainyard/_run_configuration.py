"""RunConfiguration: all of a run but its folder and its script, to be set piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._arguments import Arguments
from trainyard._conda import CondaDependencies
from trainyard._distributed import MpiConfiguration, TensorflowConfiguration, distribution, is_unset
from trainyard._environment import Environment
from trainyard._errors import TrainingException
from trainyard._scheduling import Scheduling

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard.job.v1.spec_pb2 import RunSpec

LOCAL = "local"
_MPI = ("IntelMpi", "OpenMpi", "Mpi")
_LONGEST_SECONDS = 315_576_000


class DockerConfiguration:
    """Taken from Azure's code: scripts run as processes of the node, so nothing of it has an effect."""

    def __init__(self, use_docker: bool = False, shm_size: str | None = None, arguments: Sequence[str] | None = None) -> None:
        self.use_docker = use_docker
        self.shm_size = shm_size
        self.arguments = list(arguments or ())


class RunConfiguration(Scheduling):
    """`target` is a compute target or the name of one; "local" is this machine. `data_references`: name -> reference to data.

    communicator: "None", "IntelMpi" or "OpenMpi" (then `mpi` counts, on `node_count` nodes) or "ParameterServer" (then `tensorflow`).
    Ours, None where not said: `resources` that the run takes of each node (the whole node by default), `priority` (-1000 to 1000),
    `user` (the login name by default), `max_restarts`, `checkpoint_folder`, `labels` that nodes must carry, `spread` over empty nodes.
    """

    def __init__(
        self,
        script: str | None = None,
        arguments: Sequence[Any] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
        command: Sequence[Any] | str | None = None,
    ) -> None:
        super().__init__()
        self.script = script
        self.arguments = list(arguments or ())
        self.command = command
        self.framework = framework or "Python"
        self.communicator = communicator or "None"
        self.target: ComputeTarget | str = LOCAL
        self.environment = Environment("project_environment")
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies
        self.data_references: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.docker = DockerConfiguration()
        self.mpi = MpiConfiguration()
        self.tensorflow = TensorflowConfiguration()
        self.node_count = 1
        self.max_run_duration_seconds: float | None = None

    @property
    def environment_variables(self) -> dict[str, str]:
        """Of the script's process; kept by `environment`, and set there."""
        return self.environment.environment_variables

    @environment_variables.setter
    def environment_variables(self, variables: dict[str, str]) -> None:
        self.environment.environment_variables = dict(variables)

    def _own_job(self, told_otherwise: bool) -> MpiConfiguration | TensorflowConfiguration | None:
        """The configuration that the communicator chooses."""
        match self.communicator:
            case "ParameterServer":
                return self.tensorflow
            case communicator if communicator in _MPI:
                return self.mpi
            case "None" | None:
                if not told_otherwise and not (is_unset(self.mpi) and is_unset(self.tensorflow)):
                    raise TrainingException(
                        "The run configuration's mpi or tensorflow is set, but its communicator is 'None'.",
                        target="communicator",
                        hint="set communicator to 'IntelMpi' or 'ParameterServer', or give distributed_job_config",
                    )
                return None
        raise TrainingException(
            f"communicator is one of None, ParameterServer, {', '.join(_MPI)}; not {self.communicator!r}.", target="communicator"
        )

    def _to_spec(
        self,
        arguments: Arguments,
        *,
        use_gpu: bool = False,
        distributed: Any = None,
        counts: Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> RunSpec:
        """All of the run but its source, its script and its command. `counts`: of processes, as they stand beside `distributed`.

        Raises TrainingException, UserErrorException.
        """
        from trainyard.job.v1 import spec_pb2

        jobs = (distributed, self._own_job(told_otherwise=distributed is not None))
        spread_over = distribution(jobs, {**(counts or {}), "node_count": self.node_count})
        target = target_name(self.target)
        for name, reference in {**self.data, **self.data_references}.items():
            arguments.add_input(reference, name)
        if not isinstance(self.environment, Environment):
            raise TrainingException(
                f"environment is an Environment, not {self.environment!r}.",
                target="environment",
                hint="write Environment.get(workspace, name), or Environment(name)",
            )
        spec = spec_pb2.RunSpec(compute_target=target, use_gpu=use_gpu, distribution=spread_over, resume_from=arguments.resumed_run)
        if self.framework != "Python":
            spec.framework = str(self.framework)
        self._schedule(spec)
        spec.environment.CopyFrom(self.environment._to_message(local=target == LOCAL))
        spec.inputs.extend(item._to_message() for item in arguments.inputs.values())
        seconds = self.max_run_duration_seconds if max_seconds is None else max_seconds
        if seconds is not None:
            if not 0 < seconds <= _LONGEST_SECONDS:
                raise TrainingException(
                    f"max_run_duration_seconds must be more than 0 and at most {_LONGEST_SECONDS}; it is {seconds!r}.",
                    target="max_run_duration_seconds",
                )
            spec.max_duration.FromMilliseconds(int(seconds * 1000))
        return spec


def target_name(target: ComputeTarget | str | None) -> str:
    if target is None:
        return LOCAL
    name = target if isinstance(target, str) else getattr(target, "name", None)
    if not isinstance(name, str):
        raise TrainingException(f"compute_target is a ComputeTarget or the name of one, not {target!r}.", target="compute_target")
    return name


def as_messages(words: Sequence[tuple[bool, str]]) -> list[Any]:
    from trainyard.job.v1.spec_pb2 import Argument

    return [Argument(input=text) if is_input else Argument(text=text) for is_input, text in words]
