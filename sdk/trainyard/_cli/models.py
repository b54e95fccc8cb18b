"""`trainyard model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import completion, deployment_options, endpoints, models_change, models_history
from trainyard._cli.common import (
    All,
    AsOf,
    Config,
    Json,
    Limit,
    Since,
    TagFilter,
    Token,
    as_of,
    has_tags,
    moment,
    new_group,
    page_of,
    pairs,
    workspace,
)
from trainyard._cli.model_names import Name, model_of, row
from trainyard._cli.output import emit, note, one, rows, say
from trainyard._errors import ModelNotFoundException

group = new_group("Registered models: versions whose files never change, with where each came from.")


@group.command("register")
def model_register(
    name: Annotated[str, typer.Argument(help="the name to register under")],
    path: Annotated[str, typer.Argument(help="a local file or folder; with --run, a path of that run's files")],
    run: Annotated[str, typer.Option("--run", help="register from this run's outputs", autocompletion=completion.run_ids)] = "",
    framework: Annotated[str, typer.Option(help="TensorFlow, ScikitLearn, Onnx, Custom ...")] = "",
    framework_version: Annotated[str, typer.Option(help="e.g. 2.15")] = "",
    description: Annotated[str, typer.Option(help="free text")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated")] = None,
    prop: Annotated[list[str] | None, typer.Option("--property", help="NAME=VALUE; may be repeated")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="[PURPOSE=]NAME[:VERSION] that it was trained on; may be repeated")] = None,
    cpus: Annotated[float | None, typer.Option(min=0, help="cores to serve it")] = None,
    memory_gb: Annotated[float | None, typer.Option(min=0, help="GiB of memory to serve it")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to serve it")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """A file or folder, from here or from a run, as a new version."""
    from trainyard._model import Model
    from trainyard._resource_configuration import ResourceConfiguration

    space = workspace(config)
    wish = ResourceConfiguration(cpus, memory_gb, gpus) if (cpus, memory_gb, gpus) != (None, None, None) else None
    options: dict[str, Any] = {
        "tags": pairs(tag, "--tag", bare=True),
        "properties": pairs(prop, "--property"),
        "description": description,
        "datasets": [_dataset(space, text) for text in dataset or ()],
        "model_framework": framework,
        "model_framework_version": framework_version,
        "resource_configuration": wish,
    }
    if run:
        from trainyard._cli.runs_steer import run_of

        made = run_of(config, run).register_model(name, model_path=path, **options)
    else:
        made = Model.register(space, path, name, show_progress=not as_json, **options)
    one(made.serialize() if as_json else row(made), as_json=as_json)


@group.command("list")
def model_list(
    name: Annotated[str, typer.Option("--name", help="every version of this model", autocompletion=completion.models)] = "",
    run: Annotated[str, typer.Option("--run", help="only from this run", autocompletion=completion.run_ids)] = "",
    framework: Annotated[str, typer.Option(help="only of this framework")] = "",
    stage: Annotated[str, typer.Option(help="only those at this stage: Development, Staging, Production, Archived")] = "",
    tag: TagFilter = None,
    versions: Annotated[bool, typer.Option("--versions", help="every version of every model")] = False,
    since: Since = "",
    at: AsOf = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The latest version of each, newest first, now or as they were."""
    from trainyard._model import Model

    wanted, earliest = pairs(tag, "--tag", bare=True), moment(since, "--since").timestamp() if since else 0.0
    found = Model.list(
        workspace(config),
        name or None,
        run_id=run or None,
        model_framework=framework or None,
        stage=stage or None,
        latest=not (versions or name or run),
        as_of=as_of(at),
    )
    kept = [it for it in found if has_tags(it.tags, wanted) and it.created_time.timestamp() >= earliest]
    page = page_of(kept, lambda it: it.id, limit=limit, token=page_token, everything=everything)
    rows((row(it) for it in page), ("id", "framework", "bytes", "createdTime", "runId", "aliases", "stage", "tags"), as_json=as_json)


@group.command("show")
def model_show(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """A version: the latest, NAME:VERSION or NAME@ALIAS, now or as it was; of a SavedModel its signatures too."""
    shown = (models_history.model_then(config, name, at) if at else model_of(config, name)).serialize()
    if as_json:
        emit(shown)
        return
    signatures = shown.pop("signatures")
    one(shown, as_json=False)
    for signature, it in signatures.items():
        say(f"signature {signature}{f' ({method})' if (method := it['method']) else ''}")
        for side, way in (("inputs", "in "), ("outputs", "out")):
            for tensor, spec in it[side].items():
                say(f"  {way} {tensor}: {spec['type']}{_shape(spec['shape'])}")


@group.command("download")
def model_download(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over what is there")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Its files, checked against their digests."""
    found = model_of(config, name)
    one({"model": found.id, "path": found.download(str(output), exist_ok=overwrite)}, as_json=as_json)


@group.command("deploy")
def model_deploy(
    name: Annotated[
        str, typer.Argument(help="NAME, NAME:VERSION, or NAME@ALIAS: then the endpoint follows the alias", autocompletion=completion.models)
    ],
    endpoint: Annotated[str, typer.Argument(help="the endpoint's name: 3-32 of a-z, 0-9 and -")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="take the place of what the endpoint serves")] = False,
    script: deployment_options.Script = "",
    source: deployment_options.Source = "",
    environment: deployment_options.EnvironmentName = "",
    cpu_cores: deployment_options.Cores = None,
    memory_gb: deployment_options.Memory = None,
    idle_seconds: deployment_options.Idle = None,
    sample_rate: deployment_options.Rate = None,
    auth: deployment_options.Auth = "",
    tls_cert: deployment_options.TlsCertificate = "",
    tls_key: deployment_options.TlsKey = "",
    tls_name: deployment_options.TlsName = "",
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the endpoint; may be repeated")] = None,
    description: Annotated[str, typer.Option(help="free text")] = "",
    wait: endpoints.Wait = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Behind an address: a SavedModel or TFLite file over gRPC and REST as it is, or with a script that answers."""
    from trainyard._deployment_configuration import DeploymentConfiguration
    from trainyard._model import Model

    space = workspace(config)
    found = name if "@" in name else model_of(config, name)
    by_key, by_token = deployment_options.authentication_of(auth)
    settings = DeploymentConfiguration(
        cpu_cores,
        memory_gb,
        by_key,
        by_token,
        pairs(tag, "--tag"),
        description=description,
        idle_seconds=idle_seconds,
        sample_rate=sample_rate,
        **deployment_options.tls_of(tls_cert, tls_key, tls_name),
    )
    code = deployment_options.script_of(space, script, source, environment)
    service = Model.deploy(space, endpoint, [found], code, settings, overwrite=overwrite)
    if wait:
        endpoints.wait_for(service, quiet=as_json)
    one(endpoints.row(service), as_json=as_json)


@group.command("lineage")
def model_lineage(name: Name, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """All that it came from, and all that came from it."""
    from trainyard._model_find import parsed
    from trainyard.history.v1 import history_pb2

    model, version, alias = parsed(name)
    clients = workspace(config)._clients
    request = history_pb2.GetLineageRequest(model=history_pb2.ModelRef(model=model, version=version, alias=alias), as_of=as_of(at))
    found = clients.call(clients.history.GetLineage, request, ModelNotFoundException)
    nodes = [{"id": it.id, "kind": it.kind, "label": it.label} for it in found.nodes]
    edges = [{"source": it.source, "target": it.target, "how": it.how} for it in found.edges]
    if as_json:
        emit({"nodes": nodes, "edges": edges})
        return
    for edge in edges:
        say(f"{edge['source']} --{edge['how']}--> {edge['target']}")
    if not edges:
        note(f"{name} came from no run, and nothing came from it.")


def _shape(sizes: list[int | None] | None) -> str:
    """ "[?, 784]"; "" for a scalar."""
    if sizes is None:
        return "[...]"
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]" if sizes else ""


def _dataset(space: Any, text: str) -> tuple[str, Any]:
    from trainyard._dataset import Dataset

    purpose, equals, rest = text.partition("=")
    name, _, version = (rest if equals else text).partition(":")
    return (purpose if equals else "training"), Dataset.get_by_name(space, name, int(version) if version.isdecimal() else "latest")


for _name, _command in (
    ("alias", models_change.model_alias),
    ("unalias", models_change.model_unalias),
    ("stage", models_change.model_stage),
    ("update", models_change.model_update),
    ("delete", models_change.model_delete),
    ("history", models_history.model_history),
):
    group.command(_name)(_command)
