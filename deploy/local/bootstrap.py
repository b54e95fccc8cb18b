"""The first step of `make setup`: `.venv` from pinned requirements. Runs on a bare Python 3.11, standard library only.

python3.11 deploy/local/bootstrap.py requirements/platform.txt [requirements/dev.txt ...]
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from deploy.local.cache import locked  # noqa: E402
from deploy.local.console import step  # noqa: E402

VENV = REPO / ".venv"
SCRIPTS = {
    "trainyard": """#!{python}
import sys
from trainyard._cli import app
sys.exit(app(prog_name="trainyard"))
""",
    "trainyard-model-server": """#!{python}
from services.serving.standalone import main
main()
""",
}


def main() -> int:
    if sys.version_info[:2] != (3, 11):
        print(f"Trainyard needs Python 3.11; this is {sys.version.split()[0]}. Give make PYTHON=/path/to/python3.11", file=sys.stderr)
        return 1
    try:
        with locked(REPO / ".venv.lock"):
            for name in sys.argv[1:]:
                _install(REPO / name)
            _write_scripts()
    except subprocess.CalledProcessError as error:
        words = " ".join(str(word) for word in error.cmd[:6])
        print(f"`{words} ...` ended with {error.returncode}; what it said stands above", file=sys.stderr)
        return 1
    return 0


def _install(requirements: Path) -> None:
    stamp = VENV / f".{requirements.name}.installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.executable.encode() + str(REPO).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    python = VENV / "bin" / "python"
    if not any(VENV.glob(".*.installed")):
        with step("making .venv"):
            shutil.rmtree(VENV, ignore_errors=True)
            venv.create(VENV, with_pip=True, symlinks=True)
    stamp.unlink(missing_ok=True)
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    with step(f"installing {requirements.name}", "a minute the first time"):
        words = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(requirements)]
        subprocess.run(words, check=True, env=environment)
    packages = next((VENV / "lib").glob("python3.*")) / "site-packages"
    (packages / "trainyard.pth").write_text(f"{REPO / 'sdk'}\n{REPO}\n")
    stamp.write_text(wanted)


def _write_scripts() -> None:
    for name, text in SCRIPTS.items():
        script = VENV / "bin" / name
        script.write_text(text.format(python=VENV / "bin" / "python"))
        script.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
