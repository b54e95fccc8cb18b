"""Which Horovod an environment gets, by what it is known, and how our changes are applied to its source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from services.chassis.environments import BuildError, definition, resolve
from services.chassis.environments.horovod import Recipe, recipe_of, with_horovod
from services.chassis.environments.horovod.patching import DoesNotFit, apply
from services.chassis.environments.horovod.wheel import wheel_key

_PATCH = """--- a/greeting.txt
+++ b/greeting.txt
@@ -1,3 +1,4 @@
 one
-two
+zwei
+zweieinhalb
 three
@@ -5 +6 @@ three
-five
+six
--- /dev/null
+++ b/folder/new.txt
@@ -0,0 +1 @@
+new
"""


def _asked(version: str, packages: list[str], framework: str = "tensorflow") -> SimpleNamespace:
    return SimpleNamespace(framework=framework, framework_version=version, pip_packages=packages, conda_specification="")


def test_a_ring_gets_the_wheel_for_its_tensorflow_and_another_run_gets_none() -> None:
    ring, plain = definition("tensorflow", "2.15", [], horovod=True), definition("tensorflow", "2.15", [])

    assert recipe_of(ring.requirements) == Recipe("2.15.1")
    assert recipe_of(plain.requirements) is None
    assert ring.id != plain.id


@pytest.mark.parametrize("version", ["", "1.13", "2.0", "2.15.1"])
@pytest.mark.parametrize("named", ["horovod", "horovod==0.28.1", "Horovod[tensorflow]>=0.19", "horovod==0.15.2"])
def test_whoever_names_horovod_gets_ours_whichever_release_was_named(version: str, named: str) -> None:
    made = definition("tensorflow", version, [named, "six"])

    assert [it for it in made.requirements if "horovod" in it.lower()] == [Recipe("2.15.1").requirement]
    assert "six" in made.requirements


def test_a_release_that_was_named_and_is_another_is_told() -> None:
    told = resolve(_asked("2.4", ["horovod==0.19.1"])).warnings
    silent = resolve(_asked("2.4", ["horovod"])).warnings

    assert any("horovod==0.19.1 was replaced by Horovod 0.28.1" in it for it in told)
    assert silent == ()


@pytest.mark.parametrize(
    ("framework", "version", "packages", "target"),
    [
        ("tensorflow", "2.16", ["horovod"], "tensorflow-cpu==2.16.2"),
        ("tensorflow", "2.20", [], "tensorflow-cpu==2.20.0"),
        ("none", "", ["horovod"], "horovod"),
    ],
)
def test_a_tensorflow_without_horovod_is_refused_with_those_that_have_it(
    framework: str, version: str, packages: list[str], target: str
) -> None:
    with pytest.raises(BuildError, match=r"2\.15\.1 .* and 2\.21") as caught:
        resolve(_asked(version, packages, framework), horovod=True)

    assert caught.value.code == "UserError"
    assert caught.value.target == target


def test_a_ring_of_scripts_without_tensorflow_gets_no_wheel() -> None:
    assert with_horovod(["six"], wanted=True) == ["six"]


def test_each_tensorflow_has_a_wheel_of_its_own_under_a_key_of_its_own() -> None:
    old, new = Recipe("2.15.1"), Recipe("2.21.0")

    assert old.requirement != new.requirement
    assert wheel_key(old) != wheel_key(new)
    assert old.requirement.startswith("horovod==0.28.1+trainyard.")
    assert all(path.is_file() for path in (*old.patches, *new.patches))


def test_a_patch_changes_files_and_makes_new_ones(tmp_path: Path) -> None:
    (tmp_path / "greeting.txt").write_text("one\ntwo\nthree\nfour\nfive\n")

    apply(_PATCH, tmp_path)

    assert (tmp_path / "greeting.txt").read_text() == "one\nzwei\nzweieinhalb\nthree\nfour\nsix\n"
    assert (tmp_path / "folder/new.txt").read_text() == "new\n"


@pytest.mark.parametrize("other", ["one\nTWO\nthree\nfour\nfive\n", "one\ntwo\n", ""])
def test_a_patch_that_does_not_fit_to_the_letter_is_an_error_that_says_where(tmp_path: Path, other: str) -> None:
    (tmp_path / "greeting.txt").write_text(other)

    with pytest.raises(DoesNotFit, match=r"greeting.txt, line \d"):
        apply(_PATCH, tmp_path)
