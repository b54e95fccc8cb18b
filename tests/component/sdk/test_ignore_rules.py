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
pieces = st.sampled_from(["a", "b", "*", "?", "**", ".py", "[ab]", "[!a]", "/", "\\#", "\\!", " ", "é", "-x", "A"])
lines = st.tuples(
    st.sampled_from(["", "!", "/", "!/"]), st.lists(pieces, min_size=1, max_size=5).map("".join), st.sampled_from(["", "/", "/**", " "])
)
rules = st.lists(
    st.one_of(lines.map("".join), st.sampled_from(["# note", "", "**/a", "a/**/b", "*.py", "!*.py", "a/*", "!a/b"])), max_size=8
)


def as_git_reads_it(folder: Path, paths: list[str]) -> set[str]:
    """Those of the paths that git ignores."""
    subprocess.run(["git", "init", "-q"], cwd=folder, env=GIT, check=True)
    asked = "\0".join(paths).encode()
    command = ["git", "check-ignore", "--stdin", "-z", "--no-index"]
    done = subprocess.run(command, cwd=folder, env=GIT, input=asked, capture_output=True)
    assert done.returncode in (0, 1), done.stderr
    return {path for path in done.stdout.decode().split("\0") if path}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees, rules)
@example(["a/b/a.py", "a/b/b.py"], ["a/*", "!a/b", "a/b/*", "!a/b/b.py"])
@example(["a/b", "b/a/b"], ["/a/b"])
@example(["a b", "a"], ["a "])
@example(["a/b/a"], ["a/**/a"])
def test_a_snapshot_leaves_out_what_git_ignores(tree: list[str], rules: list[str]) -> None:
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

        ignored = as_git_reads_it(folder, files)
        taken = {found.path for found in _snapshot.walk(folder)} - {".gitignore"}

        assert taken == set(files) - ignored
