"""What of the agent's own environment a child may see. A list of what is given, never of what is kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FOR_DOWNLOADS = (
    "PATH",
    "LANG",
    "LC_*",
    "TZ",
    "*_proxy",
    "*_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
FOR_SCRIPTS = (*FOR_DOWNLOADS, "HOME", "USER", "LOGNAME", "SHELL", "LD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "OMP_*", "TF_*")


def only(environment: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """Names by pattern; a star stands at one end."""
    return {name: value for name, value in environment.items() if any(_matches(name, pattern) for pattern in allowed)}


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
