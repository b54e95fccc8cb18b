"""A run's input as it travels: its files in the request, or, where they are many, in an object that the request names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainyard._artifacts import put_list, read_list

if TYPE_CHECKING:
    from trainyard._objects import Objects

MOST_BYTES_IN_REQUEST = 200_000
_PREFIX = "datastores/manifests"


def put_elsewhere(objects: Objects, item: Any) -> None:
    """Takes the files out of a DatasetInput and names the object that has them. Raises UserErrorException for a list that is too long."""
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    item.manifest_key, item.manifest_sha256 = put_list(objects, _PREFIX, Dataset(files=item.files))
    item.ClearField("files")


def of(objects: Objects, item: Any) -> list[Any]:
    """The SourceFiles of a DatasetInput. Raises ObjectMissing, and TrainyardException for a list that is too long or not as its digest says."""
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    if not item.manifest_key:
        return list(item.files)
    return list(read_list(objects, Dataset, f"{_PREFIX}/{item.manifest_sha256}", item.manifest_sha256).files)
