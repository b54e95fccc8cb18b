"""Finding models: by name, id, version and tags; and the datasets that a registration names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from trainyard._errors import ModelNotFoundException, UserErrorException
from trainyard._model_datasets import name_and_version, purposes
from trainyard._services_of import checked_name, clients_of
from trainyard._times import order

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard._workspace import Workspace
    from trainyard.model.v1.model_pb2 import DatasetRef

Tags = Mapping[str, str] | Sequence[str | Sequence[str]]
# A version lists its files, and a model may have many of both.
_SECONDS = 30.0


def dataset_refs(
    datasets: Sequence[Any] | None, sample_input: FileDataset | None = None, sample_output: FileDataset | None = None
) -> list[DatasetRef]:
    """Registered datasets, or pairs (purpose, dataset), as the registry names them. Raises UserErrorException for any other thing."""
    from trainyard.model.v1.model_pb2 import DatasetRef

    named = [(purpose, *name_and_version(it)) for purpose, it in purposes(datasets, sample_input, sample_output)]
    return [DatasetRef(name=name, version=version, purpose=purpose) for purpose, name, version in named]


def versions(workspace: Workspace, name: str | None, *, newest_only: bool) -> Iterator[Any]:
    """ModelVersion messages, newest first: of `name`, or of all models."""
    from trainyard.model.v1 import model_pb2

    clients = clients_of(workspace)

    def ask(model: str) -> Iterator[Any]:
        request = model_pb2.ListModelVersionsRequest(model=checked_name("name", model))
        for answer in clients.pages(clients.models.ListModelVersions, request, ModelNotFoundException, timeout=_SECONDS):
            yield from answer.versions

    if name is not None:
        yield from islice(ask(name), 1 if newest_only else None)
        return
    newest = list(ask(""))
    everything = newest if newest_only else [version for model in newest for version in ask(model.model)]
    yield from sorted(everything, key=lambda version: order(version.registered_at), reverse=True)


def versions_then(workspace: Workspace, name: str | None, as_of: Any, *, newest_only: bool) -> Iterator[Any]:
    """As `versions`, at a moment: history tells them."""
    from trainyard._moments import as_of as moment
    from trainyard.history.v1 import history_pb2

    clients = clients_of(workspace)
    model = "" if name is None else checked_name("name", name)
    request = history_pb2.ListModelsRequest(model=model, newest_only=newest_only, as_of=moment(as_of))
    found: list[Any] = []
    for answer in clients.pages(clients.history.ListModels, request, ModelNotFoundException, timeout=_SECONDS):
        found += answer.versions
    yield from sorted(found, key=lambda version: order(version.registered_at), reverse=True)


def has(own: Mapping[str, str], wanted: Tags | None) -> bool:
    """Whether all of them are there; a name alone asks for any value."""
    if not wanted:
        return True
    if isinstance(wanted, Mapping):
        return all(own.get(str(name)) == str(value) for name, value in wanted.items())
    asked = [wanted] if isinstance(wanted, str) else wanted
    return all(item in own if isinstance(item, str) else own.get(str(item[0])) == str(item[-1]) for item in asked)


def texts(entries: Mapping[str, str] | None) -> dict[str, str]:
    """Names and values as texts."""
    return {str(name): str(value) for name, value in (entries or {}).items()}


def parsed(text: str) -> tuple[str, int, str]:
    """ "name:3", "name@champion" or "name" as (name, version, alias). Raises UserErrorException."""
    name, colon, number = checked_name("id", text).partition(":")
    plain, at, alias = name.partition("@")
    right = not colon or (not at and number.isdecimal() and number.isascii() and 0 < int(number) < 2**63)
    if not right or not plain or (at and not alias):
        raise UserErrorException(f"{text!r} is no model id; one looks like 'name:3' or 'name@champion'.", target=text)
    return plain, int(number or 0), alias


def parsed_id(text: str) -> tuple[str, int, str]:
    """As `parsed`; a name alone is no id."""
    name, version, alias = parsed(text)
    if not version and not alias:
        raise UserErrorException(f"{text!r} is no model id; one looks like 'name:3' or 'name@champion'.", target=text)
    return name, version, alias


def number_of(version: int | str | None) -> int:
    """0: the latest."""
    try:
        number = int(version or 0)
    except ValueError:
        number = -1
    if not 0 <= number < 2**63:
        raise UserErrorException(f"{version!r} is no version; one is a number from 1.", target="version")
    return number


def fetch(workspace: Workspace, name: str, version: int, alias: str = "") -> Any:
    """One ModelVersion; 0: the latest, or where the alias points. Raises ModelNotFoundException with what there is."""
    clients = clients_of(workspace)
    from trainyard.model.v1 import model_pb2

    request = model_pb2.GetModelVersionRequest(model=checked_name("name", name), version=version, alias=alias)
    return clients.call(clients.models.GetModelVersion, request, ModelNotFoundException).version
