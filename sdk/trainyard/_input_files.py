"""A run's input as it travels: its files in the request, or, where they are many, in an object that the request names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from trainyard._artifacts import parsed
from trainyard._errors import TrainyardException

if TYPE_CHECKING:
    from trainyard._objects import Objects

MOST_BYTES_IN_REQUEST = 200_000


def key(sha256: str) -> str:
    return f"datastores/manifests/{sha256}"


def put_elsewhere(objects: Objects, item: Any) -> None:
    """Takes the files out of a DatasetInput and names the object that has them."""
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    content = Dataset(files=item.files).SerializeToString(deterministic=True)
    item.manifest_sha256 = hashlib.sha256(content).hexdigest()
    item.manifest_key = key(item.manifest_sha256)
    objects.put_bytes(item.manifest_key, content)
    item.ClearField("files")


def of(objects: Objects, item: Any) -> list[Any]:
    """The SourceFiles of a DatasetInput. Raises ObjectMissing, and TrainyardException for a list that is not as its digest says."""
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    if not item.manifest_key:
        return list(item.files)
    content = objects.get_bytes(key(item.manifest_sha256))
    if hashlib.sha256(content).hexdigest() != item.manifest_sha256:
        what = f"The list of the input's files, {item.manifest_key}, is not what was written: its digest differs."
        raise TrainyardException(what, code="WrongDigest", target=item.manifest_key)
    return list(parsed(Dataset, content, item.manifest_key).files)
