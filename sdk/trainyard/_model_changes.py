"""What changes of a registered version: what is said of it, its aliases and its stage, and that it is deleted. Its files never do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._errors import ModelNotFoundException, UserErrorException
from trainyard._model_facts import STAGES, ModelFacts
from trainyard._model_find import dataset_refs, fetch
from trainyard._texts import texts

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard._resource_configuration import ResourceConfiguration

# A deletion waits until all that was said of endpoints is known.
_DELETE_SECONDS = 120.0


class ModelChanges(ModelFacts):
    """Each method returns once the change has taken effect, and shows it."""

    def refresh(self) -> None:
        """Shows the version as it is now. Raises ModelNotFoundException where it was deleted."""
        self._message = fetch(self.workspace, self.name, self.version)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Adds tags, or gives those that are there a new value."""
        self._update(tags=texts("tags", tags))

    def remove_tags(self, tags: str | Sequence[str]) -> None:
        """Takes tags away by their names; one that is not there is no error."""
        self._update(remove_tags=_names(tags))

    def remove_tag(self, tag: str) -> None:
        """As remove_tags, of one."""
        self.remove_tags(tag)

    def add_properties(self, properties: Mapping[str, str]) -> None:
        """Adds properties. Raises UserErrorException where one is there with another value: properties never change."""
        self._update(properties=texts("properties", properties))

    def update_tags_properties(
        self,
        add_tags: Mapping[str, str] | None = None,
        remove_tags: str | Sequence[str] | None = None,
        add_properties: Mapping[str, str] | None = None,
    ) -> None:
        """All in one step, or nothing of it. Raises UserErrorException for a property that would change."""
        self._update(
            tags=texts("add_tags", add_tags), remove_tags=_names(remove_tags or ()), properties=texts("add_properties", add_properties)
        )

    def add_dataset_references(self, datasets: Sequence[Any]) -> None:
        """Registered datasets, or pairs (purpose, dataset), beside those that the lineage names."""
        self._update(datasets=dataset_refs(datasets))

    def update(
        self,
        tags: Mapping[str, str] | None = None,
        description: str | None = None,
        sample_input_dataset: FileDataset | None = None,
        sample_output_dataset: FileDataset | None = None,
        resource_configuration: ResourceConfiguration | None = None,
    ) -> None:
        """What is given takes the place of what was there, all in one step; tags are replaced as a whole."""
        fields: dict[str, Any] = {"datasets": dataset_refs(None, sample_input_dataset, sample_output_dataset)}
        if tags is not None:
            self.refresh()
            fields["tags"] = texts("tags", tags)
            fields["remove_tags"] = [name for name in self.tags if name not in fields["tags"]]
        if description is not None:
            fields["description"] = str(description)
        if resource_configuration is not None:
            fields["requirements"] = resource_configuration._to_message()
        self._update(**fields)

    def set_alias(self, alias: str) -> None:
        """Lets `name@alias` mean this version from now on; an alias that was elsewhere moves in one step."""
        self._call("SetAlias", model=self.name, alias=alias, version=self.version)

    def remove_alias(self, alias: str) -> None:
        """Takes an alias of this version away. Raises UserErrorException where it does not point here."""
        self.refresh()
        if alias not in self.aliases:
            there = ", ".join(self.aliases) or "none"
            raise UserErrorException(f"{self.name}@{alias} does not point at {self.id}; its aliases are: {there}.", target=alias)
        self._call("SetAlias", model=self.name, alias=alias)

    def set_stage(self, stage: str) -> None:
        """Development, Staging, Production or Archived."""
        number = {name.lower(): number for number, name in STAGES.items() if name}.get(str(stage).lower())
        if number is None:
            raise UserErrorException(
                f"{stage!r} is no stage; there are: {', '.join(name for name in STAGES.values() if name)}.", target="stage"
            )
        self._call("SetStage", model=self.name, version=self.version, stage=number)

    def delete(self, with_aliases: bool = False) -> None:
        """The version is no more, and its number is never given again. Its files go too where nothing else has them.

        Raises UserErrorException, which names them, while an endpoint serves it or is about to, and, unless with_aliases is True, while
        an alias points at it.
        """
        from trainyard.model.v1 import model_pb2

        request = model_pb2.DeleteModelVersion(
            submission_id=uuid.uuid4().hex, model=self.name, version=self.version, with_aliases=with_aliases
        )
        clients = self.workspace._clients
        clients.call(clients.models.DeleteModelVersion, request, UserErrorException, timeout=_DELETE_SECONDS)

    def _update(self, **fields: Any) -> None:
        self._call("UpdateModelVersion", model=self.name, version=self.version, digest=self.digest, **fields)

    def _call(self, method: str, **fields: Any) -> None:
        from trainyard.model.v1 import model_pb2

        request = getattr(model_pb2, method)(submission_id=uuid.uuid4().hex, **fields)
        clients = self.workspace._clients
        answer = clients.call(getattr(clients.models, method), request, UserErrorException)
        if not answer.HasField("version"):
            raise ModelNotFoundException(f"{self.id} was deleted.", target=self.id)
        self._message = answer.version


def _names(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else [str(name) for name in given]
