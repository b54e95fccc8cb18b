"""A model version as its facts tell it: what the registry keeps, and what history tells of any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainyard.model.v1.model_pb2 import ModelVersion, ModelVersionRegistered


def registered(fact: ModelVersionRegistered) -> ModelVersion:
    """As it begins."""
    from trainyard.model.v1.model_pb2 import ModelVersion

    return ModelVersion(
        model=fact.model,
        version=fact.version,
        digest=fact.digest,
        artifacts=fact.artifacts,
        lineage=fact.lineage,
        framework=fact.framework,
        framework_version=fact.framework_version,
        description=fact.description,
        tags=fact.tags,
        properties=fact.properties,
        requirements=fact.requirements if fact.HasField("requirements") else None,
        registered_at=fact.registered_at,
        signatures=fact.signatures,
        tag_sets=fact.tag_sets,
        operations=fact.operations,
        warnings=fact.warnings,
    )


def after(version: ModelVersion, fact: Any) -> ModelVersion:
    """A new one, after a StageChanged, ModelVersionUpdated or ModelVersionDeleted; its files are the same ever after."""
    from trainyard.model.v1 import model_pb2 as pb

    changed = pb.ModelVersion()
    changed.CopyFrom(version)
    changed.updated_at.CopyFrom(fact.at)
    match fact:
        case pb.StageChanged():
            changed.stage = fact.stage
        case pb.ModelVersionUpdated():
            for name in ("tags", "properties", "description", "requirements"):
                changed.ClearField(name)
            requirements = fact.requirements if fact.HasField("requirements") else None
            said = pb.ModelVersion(tags=fact.tags, properties=fact.properties, description=fact.description, requirements=requirements)
            changed.MergeFrom(said)
            del changed.lineage.datasets[:]
            changed.lineage.datasets.extend(fact.datasets)
        case pb.ModelVersionDeleted():
            changed.deleted_at.CopyFrom(fact.at)
    return changed
