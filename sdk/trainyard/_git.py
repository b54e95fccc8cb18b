"""The git state of a source folder, as properties of the run that was made of it. Nothing where there is no git or no repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SECONDS = 10.0
_LONGEST = 1000


def properties(folder: Path) -> dict[str, str]:
    """azureml.git.{repository_uri,branch,commit,dirty} and mlflow.source.git.{repoURL,branch,commit}."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    branch = _git(folder, "symbolic-ref", "--short", "-q", "HEAD")
    uri = without_credentials(_git(folder, "config", "--get", "remote.origin.url"))
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    found = {"azureml.git.commit": commit, "mlflow.source.git.commit": commit, "azureml.git.dirty": str(bool(changed))}
    if branch:
        found |= {"azureml.git.branch": branch, "mlflow.source.git.branch": branch}
    if uri:
        found |= {"azureml.git.repository_uri": uri, "mlflow.source.git.repoURL": uri}
    return {name: value[:_LONGEST] for name, value in found.items()}


def without_credentials(uri: str) -> str:
    """The URI without password, token, query and fragment; a user name stays with ssh alone, where it is no secret."""
    if "://" not in uri:
        return uri if not uri.rpartition("@")[0].count(":") else uri.rpartition("@")[2]
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    user = f"{parts.username}@" if parts.username and parts.scheme in ("ssh", "git+ssh") else ""
    return urlunsplit((parts.scheme, f"{user}{parts.hostname or ''}{port}", parts.path, "", ""))


def _git(folder: Path, *arguments: str) -> str:
    """What it prints; "" where it fails. Nothing that a repository's configuration names is started."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, env={**os.environ, **quiet})
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.decode("utf-8", "replace").strip() if result.returncode == 0 else ""
