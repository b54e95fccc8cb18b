"""Keys of the object store: made once, one pair a user, each allowed what its service does and no more."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.cache import locked
from deploy.local.private_file import write_private

BUCKET = "trainyard"
_READ, _WRITE, _REMOVE = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
# To go on with an upload that was broken off.
_PARTS = ("s3:ListMultipartUploadParts", "s3:AbortMultipartUpload")
# user -> prefix -> actions
_ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "client": {
        "snapshots/*": (_READ, _WRITE, *_PARTS),
        "runs/*": (_READ,),
        "datastores/*": (_READ, _WRITE, *_PARTS),
        "uploads/*": (_READ, _WRITE, *_PARTS),
    },
    "trainer_agent": {
        "snapshots/*": (_READ,),
        "runs/*": (_READ, _WRITE, *_PARTS),
        "datastores/blobs/*": (_READ,),
        "datastores/manifests/*": (_READ,),
        "uploads/*": (_READ, _WRITE, *_PARTS),
        "wheels/*": (_READ, _WRITE, *_PARTS),
    },
    "dataset": {"datastores/*": (_READ,), "datastores/manifests/*": (_WRITE,)},
    # It takes away what no version has any more.
    "registry": {"runs/*": (_READ,), "uploads/*": (_READ,), "uploads/models/*": (_REMOVE,)},
    "serving": {"runs/*": (_READ,), "uploads/*": (_READ,), "snapshots/*": (_READ,)},
    "history": {"runs/*": (_READ,), "uploads/*": (_READ,)},
}


@dataclass(frozen=True)
class Secrets:
    """User name -> password; `root` is MinIO's own."""

    passwords: dict[str, str]

    @classmethod
    def load_or_make(cls, path: Path) -> Secrets:
        """Those of the file; what misses there is made and kept. Several at once agree."""
        with locked(path.with_suffix(".lock")):
            known: dict[str, str] = json.loads(path.read_text())["passwords"] if path.exists() else {}
            made = cls({name: known.get(name) or secrets.token_hex(20) for name in ("root", *_ALLOWED)})
            if made.passwords != known:
                write_private(path, json.dumps(asdict(made)))
        return made

    def minio_root(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": self.passwords["root"]}

    def object_store(self, service: str) -> dict[str, str]:
        """Settings by environment; nothing for a service that has no business there."""
        if service not in _ALLOWED:
            return {}
        return {"TRAINYARD_OBJECT_STORE__ACCESS_KEY": service, "TRAINYARD_OBJECT_STORE__SECRET_KEY": self.passwords[service]}


def policy(user: str) -> dict[str, object]:
    """A MinIO policy document. Without the right to list, a missing object would look like a forbidden one."""
    statements = [
        {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{BUCKET}/{prefix}"]}
        for prefix, actions in _ALLOWED[user].items()
    ]
    listing = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"], "Resource": [f"arn:aws:s3:::{BUCKET}"]}
    return {"Version": "2012-10-17", "Statement": [*statements, listing]}


def set_up_store(endpoint: str, known: Secrets, done: Path) -> None:
    """The bucket, the users and their policies. `done` remembers what was set up, so that a second start asks for nothing twice."""
    from minio import Minio, MinioAdmin
    from minio.credentials.providers import StaticProvider

    wanted = hashlib.sha256(json.dumps([known.passwords, [policy(user) for user in _ALLOWED]], sort_keys=True).encode()).hexdigest()
    client = Minio(endpoint, "root", known.passwords["root"], secure=False, region="us-east-1")
    if client.bucket_exists(BUCKET) and done.exists() and done.read_text() == wanted:
        return
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)
    admin = MinioAdmin(endpoint=endpoint, credentials=StaticProvider("root", known.passwords["root"]), secure=False)
    for user in _ALLOWED:
        admin.policy_add(f"trainyard-{user}", policy=policy(user))
        admin.user_add(user, known.passwords[user])
        try:
            admin.attach_policy([f"trainyard-{user}"], user=user)
        except Exception as error:
            # MinIO refuses to attach what is attached.
            if "already" not in str(error).lower():
                raise
    done.write_text(wanted)
