"""`trainyard run submit`: a folder and a script (or command) as a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainyard._cli import completion
from trainyard._cli.common import Config, Json, pairs, workspace, wrong
from trainyard._cli.environments import named
from trainyard._cli.output import emit, say
from trainyard._run_configuration import LOCAL

if TYPE_CHECKING:
    from trainyard._workspace import Workspace
    from trainyard.job.v1.spec_pb2 import EnvironmentSpec, RunSpec

_MODES = ("mount", "download")
_DISTRIBUTED = ("mpi", "ps", "")


@dataclass
class Submission:
    """What Experiment.submit takes: the folder, and the specification without its source."""

    source_directory: Path
    spec: RunSpec

    def _to_spec(self) -> RunSpec:
        return self.spec


def submit(
    folder: Annotated[Path, typer.Argument(help="the source folder; .amlignore or .gitignore keeps files out")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="after --: arguments of the script; @NAME is the path of the input NAME", show_default=False)
    ] = None,
    script: Annotated[str, typer.Option(help="the script, a path inside the folder")] = "",
    command: Annotated[str, typer.Option(help="instead of a script: a command line; $NAME is a variable or input; no shell reads it")] = "",
    target: Annotated[str, typer.Option(help="compute target", autocompletion=completion.pools)] = "local",
    experiment: Annotated[
        str, typer.Option(help="the name it is kept under; the folder's by default", autocompletion=completion.experiments)
    ] = "",
    env: Annotated[str, typer.Option("--env", help="a registered or curated environment: NAME or NAME:VERSION")] = "",
    framework_version: Annotated[str, typer.Option(help="TensorFlow's, e.g. 2.15; 'none' for an environment without it")] = "",
    pip: Annotated[list[str] | None, typer.Option(help="a package, e.g. 'pandas<3'; may be repeated")] = None,
    environment_variable: Annotated[list[str] | None, typer.Option("--variable", help="NAME=VALUE for the script; may be repeated")] = None,
    inputs: Annotated[list[str] | None, typer.Option("--input", help="NAME=DATASET[:VERSION][@mount|@download]; may be repeated")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="one argument of the script, as --arg=--lr --arg=0.1; may be repeated")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated")] = None,
    display_name: Annotated[str, typer.Option(help="free text")] = "",
    gpu: Annotated[bool, typer.Option("--gpu", help="ask for GPUs")] = False,
    distributed: Annotated[str, typer.Option(help="mpi (a Horovod ring) or ps (a TensorFlow cluster by TF_CONFIG)")] = "",
    nodes: Annotated[int, typer.Option(min=1, max=1000, help="nodes of a distributed run")] = 1,
    processes: Annotated[int, typer.Option("--processes-per-node", min=1, max=64, help="ranks a node")] = 1,
    min_nodes: Annotated[int | None, typer.Option(min=1, max=1000, help="an elastic ring (mpi) goes on with as few nodes")] = None,
    max_nodes: Annotated[int | None, typer.Option(min=1, max=1000, help="and grows to as many")] = None,
    workers: Annotated[int, typer.Option(min=0, help="of a TensorFlow cluster")] = 1,
    servers: Annotated[int, typer.Option("--parameter-servers", min=0, help="of a TensorFlow cluster")] = 1,
    chief: Annotated[bool, typer.Option("--chief", help="a chief beside the workers of a TensorFlow cluster")] = False,
    evaluator: Annotated[bool, typer.Option("--evaluator", help="and an evaluator")] = False,
    cpus: Annotated[
        float | None, typer.Option(help="cores that the run takes of each node; without any of these three the whole node")
    ] = None,
    memory_in_gb: Annotated[float | None, typer.Option("--memory-gb", help="GiB that it takes of each node")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that it takes of each node")] = None,
    priority: Annotated[int | None, typer.Option(help="-1000 to 1000; higher goes first")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME or NAME=VALUE that its nodes must carry; may be repeated")] = None,
    spread: Annotated[
        bool | None, typer.Option("--spread/--pack", help="prefer empty nodes, or those that are in use", show_default=False)
    ] = None,
    user: Annotated[str, typer.Option(help="on whose account it counts; you by default", show_default=False)] = "",
    checkpoint_folder: Annotated[
        str, typer.Option(help="a folder of the script's that is mirrored while it runs, and is there again after a restart")
    ] = "",
    max_restarts: Annotated[int | None, typer.Option(help="how often it begins again after the script has failed")] = None,
    resume_from: Annotated[str, typer.Option(help="a run whose last checkpoint it begins with", autocompletion=completion.run_ids)] = "",
    max_seconds: Annotated[float | None, typer.Option(min=0.001, help="the script is ended after so many seconds")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="stay, show phases and output; exit code 4 where it ends badly")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Send a folder and run its script (or a command) on a compute target."""
    from trainyard import ResourceConfiguration
    from trainyard._experiment import Experiment
    from trainyard._scheduling import Scheduling

    space = workspace(config)
    words = [*(arg or ()), *(arguments or ())]
    spec = _what(folder, script, command, words)
    spec.compute_target, spec.use_gpu, spec.display_name = target, gpu, display_name
    spec.environment.CopyFrom(_environment(space, env, framework_version, pip or [], local=target == LOCAL))
    spec.environment.environment_variables.update(pairs(environment_variable, "--variable"))
    spec.tags.update(pairs(tag, "--tag", bare=True))
    counts = {
        "node_count": nodes,
        "process_count_per_node": processes,
        "worker_count": workers,
        "parameter_server_count": servers,
        "min_nodes": min_nodes,
        "max_nodes": max_nodes,
        "chief": chief,
        "evaluator": evaluator,
    }
    spec.MergeFrom(_gang(distributed, counts))
    taken = None if cpus is None and memory_in_gb is None and gpus is None else ResourceConfiguration(cpus, memory_in_gb, gpus)
    wishes = Scheduling()
    wishes._take(
        resources=taken,
        priority=priority,
        user=user or None,
        labels=label or None,
        spread=spread,
        max_restarts=max_restarts,
        checkpoint_folder=checkpoint_folder or None,
    )
    wishes._schedule(spec)
    spec.resume_from = resume_from
    if max_seconds is not None:
        spec.max_duration.FromMilliseconds(int(max_seconds * 1000))
    used = {name: _input(space, name, text) for name, text in pairs(inputs, "--input").items()}
    spec.inputs.extend(item._to_message() for item in used.values())
    for argument in spec.arguments:
        if argument.text.startswith("@") and argument.text[1:] in used:
            argument.input = argument.text[1:]
    run = Experiment(space, experiment or _named_after(folder)).submit(Submission(folder, spec))  # type: ignore[arg-type]
    if follow:
        from trainyard._cli.runs_steer import wait_for

        wait_for(run, quiet=False, as_json=as_json)
    elif as_json:
        emit({"runId": run.id, "experiment": run.experiment.name, "status": run.status})
    else:
        say(run.id)


def _what(folder: Path, script: str, command: str, words: list[str]) -> RunSpec:
    from trainyard._script_run_config import words_of
    from trainyard.job.v1 import spec_pb2

    if bool(script) == bool(command):
        raise wrong("Give either --script or --command.", "--script")
    if not folder.is_dir():
        raise wrong(f"The folder {str(folder)!r} does not exist or is no folder.", str(folder))
    if command:
        return spec_pb2.RunSpec(command=[*words_of(command), *words])
    path = Path(script)
    if path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
        raise wrong(f"--script {script!r} is no file inside {str(folder)!r}.", script)
    return spec_pb2.RunSpec(entry_script=path.as_posix(), arguments=[spec_pb2.Argument(text=word) for word in words])


def _gang(distributed: str, counts: dict[str, Any]) -> RunSpec:
    from trainyard._distributed import MpiConfiguration, TensorflowConfiguration, distribution
    from trainyard.job.v1 import spec_pb2

    if distributed not in _DISTRIBUTED:
        raise wrong(f"--distributed is mpi or ps, not {distributed!r}.", "--distributed")
    job = {"mpi": MpiConfiguration(), "ps": TensorflowConfiguration(), "": None}[distributed]
    return spec_pb2.RunSpec(distribution=distribution([job], counts))


def _environment(space: Workspace, env: str, framework_version: str, pip: list[str], *, local: bool) -> EnvironmentSpec:
    """A registered or curated one, or TensorFlow's default line with packages beside it."""
    from trainyard.job.v1 import spec_pb2

    if not env:
        framework = "none" if framework_version == "none" else "tensorflow"
        return spec_pb2.EnvironmentSpec(
            framework=framework, framework_version="" if framework == "none" else framework_version, pip_packages=pip
        )
    if framework_version or pip:
        raise wrong("--env names the whole environment: --framework-version and --pip cannot be given beside it.", "--env")
    name, _, version = env.partition(":")
    if version and not version.isdecimal():
        raise wrong(f"--env takes NAME or NAME:VERSION, not {env!r}.", "--env")
    made: EnvironmentSpec = named(space, name, int(version or 0))._to_message(local=local)
    return made


def _input(space: Workspace, name: str, text: str) -> Any:
    from trainyard._dataset import Dataset

    dataset, at, mode = text.rpartition("@") if text.endswith(tuple(f"@{mode}" for mode in _MODES)) else (text, "", "mount")
    named, colon, version = dataset.rpartition(":")
    if not colon:
        named, version = dataset, "latest"
    elif not version.isdecimal():
        raise wrong(f"--input takes NAME=DATASET[:VERSION][@mount|@download], not {name}={text}.", "--input")
    found = Dataset.get_by_name(space, named, version if version == "latest" else int(version)).as_named_input(name)
    return found.as_download() if mode == "download" else found.as_mount()


def _named_after(folder: Path) -> str:
    import re

    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_")[:100]
    return name or "default"
