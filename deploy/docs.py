"""`python -m deploy.docs [TARGET]`: the site from README, docs/ and the client's docstrings, in an environment of its own. TARGET: site/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from deploy.local import assemble

REPO = Path(__file__).resolve().parents[1]


def build(target: Path) -> subprocess.CompletedProcess[str]:
    """Any warning fails it: a link that leads nowhere, a name that is not there."""
    python = assemble.tools("docs") / "bin" / "python"
    words = [
        str(python),
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(REPO / "mkdocs.yml"),
        "--site-dir",
        str(target),
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, cwd=REPO, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else REPO / "site").resolve()
    done = build(target)
    if done.returncode:
        print(f"The site cannot be built:\n{done.stdout}{done.stderr}", file=sys.stderr)
        return 1
    print(f"The site lies in {target}: open {target / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
