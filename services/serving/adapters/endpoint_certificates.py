"""Certificates of endpoints and their keys, as files for the servers: `<home>/tls/<digest of the certificate>.{pem,sslconfig}`, for their owner
alone. A key is nowhere else: it comes by a call, and no event, log or database holds it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from services.serving.adapters.whole_file import beside, replace_whole
from services.serving.pinned import context_for
from services.serving.ports import CannotServe
from trainyard.endpoint.v1.endpoint_pb2 import Tls
from trainyard.event.v1.artifact_pb2 import Failure

_LONGEST_KEY = 1 << 16
_MOST_UNUSED = 256


class BadCertificate(Exception):
    """The text says what is wrong with a certificate, or its key."""


@dataclass(frozen=True)
class TlsFiles:
    """For servers: certificates and key in one PEM; and a tensorflow.serving.SSLConfig in text form."""

    pem: Path
    config: Path


class EndpointCertificates:
    def __init__(self, home: Path) -> None:
        self._folder = home / "tls"

    def keep(self, tls: Tls, key: str, used: Iterable[Tls] = ()) -> None:
        """`used`: those of endpoints; of all others the newest few hundred stay, as their deployments may be on their way. Raises BadCertificate
        where certificate and key do not fit each other, or the name, or now."""
        if len(key) > _LONGEST_KEY:
            raise BadCertificate(f"the key has {len(key)} bytes; {_LONGEST_KEY} are the most")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # whoever made it
        files = self._files(tls)
        with beside(files.pem, f"{tls.certificate_pem.rstrip()}\n{key.rstrip()}\n") as pem:
            _check(tls, pem)
            # In text form as in JSON: both escape what is no plain character by a backslash.
            config = f"server_cert: {json.dumps(tls.certificate_pem)}\nserver_key: {json.dumps(key)}\n"
            replace_whole(files.config, config)
            pem.replace(files.pem)
        self._forget({files.pem, *(self._files(it).pem for it in used)})

    def _forget(self, used: Collection[Path]) -> None:
        """A key that just came is the newest, and stays for its deployment."""
        made: list[tuple[int, Path]] = []
        for pem in self._folder.glob("[!.]*.pem"):
            with contextlib.suppress(FileNotFoundError):  # another call was faster
                if pem not in used:
                    made.append((pem.lstat().st_mtime_ns, pem))
        for _, pem in sorted(made)[:-_MOST_UNUSED]:
            pem.unlink(missing_ok=True)
            pem.with_suffix(".sslconfig").unlink(missing_ok=True)

    def files(self, tls: Tls) -> TlsFiles:
        """Raises CannotServe where its key is not here."""
        files = self._files(tls)
        if not (files.pem.is_file() and files.config.is_file()):
            what = (
                f"The key of the certificate for {tls.cname} is not kept here, or is no longer. Deploy again with ssl_key_pem_file, or give "
                "it by KeepCertificate."
            )
            raise CannotServe(Failure(code="CertificateKeyMissing", message=what, target=tls.cname))
        return files

    def _files(self, tls: Tls) -> TlsFiles:
        path = self._folder / hashlib.sha256(tls.certificate_pem.encode()).hexdigest()
        return TlsFiles(path.with_suffix(".pem"), path.with_suffix(".sslconfig"))


def _check(tls: Tls, pem: Path) -> None:
    """Both ends of a handshake, in memory: what is wrong here would be wrong for every caller."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An encrypted key would ask the terminal for its password.
        server.load_cert_chain(pem, password="")
        client = context_for(tls.certificate_pem)
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = "its key is another one's" if "KEY_VALUES_MISMATCH" in str(error) else "one of them is no PEM, or the key is encrypted"
        raise BadCertificate(f"the certificate and the key cannot be used: {reason}") from error
    client.check_hostname = True
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server, server_hostname=tls.cname)]
    done: set[ssl.SSLObject] = set()
    while len(done) < len(ends):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                told = getattr(error, "verify_message", "") or error.reason or "the handshake failed"
                raise BadCertificate(f"the certificate is not for callers of {tls.cname}: {told}") from error
