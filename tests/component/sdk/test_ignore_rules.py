"""What a snapshot leaves out, line by line against git's own reading of the same rules."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainyard import _snapshot

pytestmark = [pytest.mark.component, pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")]
GIT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

names = st.sampled_from(["a", "b", "ab", "a.py", "b.py", "-x", "A", "a b", "#c", "!d", "é"])
trees = st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12, unique=True)
pieces = st.sampled_from(
    [
        "a",
        "b",
        "*",
        "?",
        "**",
        ".py",
        "[ab]",
        "[!a]",
        "[^b]",
        "[[:upper:]]",
        "[a-b]x",
        "[]a]",
        "[",
        "\\a",
        "/",
        "\\#",
        "\\!",
        " ",
        "é",
        "-x",
        "A",
    ]
)
lines = st.tuples(
    st.sampled_from(["", "!", "/", "!/"]), st.lists(pieces, min_size=1, max_size=5).map("".join), st.sampled_from(["", "/", "/**", " "])
)
rules = st.lists(
    st.one_of(lines.map("".join), st.sampled_from(["# note", "", "**/a", "a/**/b", "*.py", "!*.py", "a/*", "!a/b"])), max_size=8
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: only its rules are asked, over other folders."""
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], env=GIT, check=True)
    return folder / ".git"


def as_git_reads_it(repository: Path, folder: Path, paths: list[str]) -> set[str]:
    """Those of the paths that git ignores."""
    asked = "\0".join(paths).encode()
    command = ["git", "check-ignore", "--stdin", "-z", "--no-index"]
    done = subprocess.run(
        command, cwd=folder, env={**GIT, "GIT_DIR": str(repository), "GIT_WORK_TREE": str(folder)}, input=asked, capture_output=True
    )
    assert done.returncode in (0, 1), done.stderr
    return {path for path in done.stdout.decode().split("\0") if path}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(trees, rules)
@example(["a/b/a.py", "a/b/b.py"], ["a/*", "!a/b", "a/b/*", "!a/b/b.py"])
@example(["a/b", "b/a/b"], ["/a/b"])
@example(["a b", "a"], ["a "])
@example(["a/b/a"], ["a/**/a"])
def test_a_snapshot_leaves_out_what_git_ignores(repository: Path, tree: list[str], rules: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="trainyard-ignore-") as made:
        folder = Path(made)
        files = []
        for path in tree:
            try:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text("x")
                files.append(path)
            except OSError:
                # A name that is a file already cannot be a folder too.
                continue
        (folder / ".gitignore").write_text("\n".join(rules) + "\n")

        ignored = as_git_reads_it(repository, folder, files)
        taken = {found.path for found in _snapshot.walk(folder)} - {".gitignore"}

        assert taken == set(files) - ignored
