"""Azure's ways to sign in, by name: a local platform asks for none of them, so code that makes one goes on working."""

from __future__ import annotations

from typing import Any


class AbstractAuthentication:
    """Taken as Azure's code gives it, and never used. No secret is kept."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing is looked at."""


class InteractiveLoginAuthentication(AbstractAuthentication):
    """A person in a browser."""


class ServicePrincipalAuthentication(AbstractAuthentication):
    """A service's own account."""


class AzureCliAuthentication(AbstractAuthentication):
    """Whoever signed in with the `az` command."""


class MsiAuthentication(AbstractAuthentication):
    """A machine's identity."""


class TokenAuthentication(AbstractAuthentication):
    """Tokens from a function."""


def set_diagnostics_collection(send_diagnostics: bool = True, verbosity: int | None = None) -> None:
    """Nothing is ever sent anywhere; the first call of most notebooks, so it is here."""
