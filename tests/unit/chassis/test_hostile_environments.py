"""Environments that are asked for to do harm: each is refused with a type, and nothing of it is run or blown up."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.chassis.environments import BuildError, interpreter, resolve
from services.chassis.environments.interpreter import probe
from trainyard._conda import CondaDependencies
from trainyard._errors import UserErrorException
from trainyard.job.v1.spec_pb2 import EnvironmentSpec

pytestmark = [pytest.mark.security, pytest.mark.timeout(60)]

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
TAGS = ["!!timestamp x", "!!int ''", "!!float ''", "!!bool x", "!!python/object/apply:os.system [id]", "1:" * 5000 + "1", "[" * 5000]


@pytest.mark.parametrize("text", [f"{LAUGHS}dependencies: [*i]", f"{MERGES}dependencies: [x]"])
def test_a_conda_specification_that_stands_for_more_than_memory_holds_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "e.yml").write_text(text)

    with pytest.raises(BuildError, match="anchors") as caught:
        resolve(EnvironmentSpec(conda_specification=text))
    with pytest.raises(UserErrorException, match="anchors"):
        CondaDependencies(tmp_path / "e.yml")

    assert caught.value.code == "UserError"


@pytest.mark.parametrize("item", TAGS)
def test_a_conda_specification_with_a_value_that_its_tag_belies_is_refused(item: str) -> None:
    text = f"dependencies: [{item}]" if not item.startswith("[") else f"dependencies: {item}"

    with pytest.raises(BuildError) as caught:
        resolve(EnvironmentSpec(conda_specification=text))

    assert caught.value.code == "UserError"


@pytest.mark.parametrize("text", [
    "-e .", "--index-url=http://h/", " --index-url=http://h/", "a @ file:///etc/passwd", "a @ git+https://h/r", "git+https://h/r", "./a.whl",
    "a\n--index-url http://h/", "a; " + "(" * 3000, "a" * 800_000, "a --hash=sha256:0", "a ; python_version > '3' -e .",
])  # fmt: skip
def test_a_requirement_that_is_more_than_a_name_and_versions_is_refused(text: str) -> None:
    for asked in (EnvironmentSpec(pip_packages=[text]), EnvironmentSpec(conda_specification=f"dependencies: [pip: [{text!r}]]")):
        with pytest.raises(BuildError) as caught:
            resolve(asked)

        assert caught.value.code == "UserError" and len(caught.value.message) < 3000


@pytest.mark.parametrize("version", ["1" * 5000 + ".1", "\u0662.\u0661\u0665", "2.15; import os"])
def test_a_framework_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(BuildError, match="is not known") as caught:
        resolve(EnvironmentSpec(framework="tensorflow", framework_version=version))

    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "answer",
    ["yes", "echo 5", 'echo \'[["a", "b"], "/", true]\'', "echo '[[3, 11], 5, true]'", "echo '[1, 2]'", "exit 3", "sleep 300 & echo 5"],
)
def test_a_program_that_is_no_python_is_refused_whatever_it_prints(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_SECONDS", 1.0)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)

    with pytest.raises(BuildError, match="does not answer as a Python does") as caught:
        probe(str(program))

    assert caught.value.code == "UserError"


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/zero", "/", "/proc/self/mem", "../python", "", "no such", "a\0b"])
def test_an_interpreter_path_to_what_is_no_program_is_refused(path: str) -> None:
    with pytest.raises(BuildError) as caught:
        probe(path)

    assert caught.value.code == "UserError"
