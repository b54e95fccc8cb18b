"""TLS to a server whose certificate is known: it and no other is trusted, whoever signed it and whatever name it is for. Standard library only."""

from __future__ import annotations

import re
import ssl

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def leaf_of(pem: str) -> str:
    """The first certificate, which is the server's own. Raises ValueError."""
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise ValueError("there is no certificate in the PEM text")
    return found[0] + "\n"


def context_for(pem: str) -> ssl.SSLContext:
    """For a client. Raises ValueError, and ssl.SSLError where the certificate is none."""
    context = ssl.create_default_context(cadata=leaf_of(pem))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
