"""Files that join a run apart from its outputs: each under the name of its content, so that an object never changes."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trainyard._paths import safe_relpath, sha256_file

if TYPE_CHECKING:
    from trainyard._objects import Objects
    from trainyard.event.v1.artifact_pb2 import Artifact


def put(objects: Objects, run_id: str, path: str, file: Path, *, copy_to: Path | None = None) -> Artifact:
    """The file in the store as an artifact under `path`. copy_to: a folder for a copy, where somebody may write to it meanwhile.

    Raises PlatformUnavailableException and UserErrorException.
    """
    from trainyard.event.v1.artifact_pb2 import Artifact

    safe_relpath(path)
    copy = None
    if copy_to is not None:
        copy_to.mkdir(exist_ok=True)
        copy = file = Path(shutil.copyfile(file, copy_to / secrets.token_hex(16)))
    try:
        sha256 = sha256_file(file)
        key = f"uploads/{run_id}/blobs/{sha256}"
        if not objects.exists(key):
            objects.put_file(key, file)
        return Artifact(path=path, size_bytes=file.stat().st_size, sha256=sha256, object_key=key)
    finally:
        if copy is not None:
            copy.unlink(missing_ok=True)
