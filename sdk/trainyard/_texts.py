"""Tags and properties as the wire has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard._errors import UserErrorException


def texts(option: str, given: Any) -> dict[str, str]:
    """A number becomes its text, as Azure's SDK did. Raises UserErrorException for what is no dict."""
    if given is not None and not isinstance(given, Mapping):
        raise UserErrorException(f"{option} is a dict, not {given!r}.", target=option, hint=f"write {option}={{'name': 'value'}}")
    return {str(name): str(value) for name, value in (given or {}).items()}
