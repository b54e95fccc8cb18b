import hashlib

import pytest

from services.registry.domain.files import chosen, digest, not_found
from services.registry.domain.runs import Run
from tests.unit.registry.builders import RUN, artifact, artifacts
from trainyard._errors import UserErrorException
from trainyard.model.v1.model_pb2 import Lineage


def a_run(*paths: str) -> Run:
    return Run(RUN, "Completed", Lineage(run_id=RUN), epoch=1, has_ended=True, artifacts=artifacts(*paths))


SAVED = ("outputs/model/saved_model.pb", "outputs/model/variables/variables.index", "outputs/model2/x", "outputs/a.txt", "logs/0.txt")


@pytest.mark.parametrize("path", ["outputs/model", "outputs/model/", "./outputs/model"])
def test_a_folder_keeps_its_own_name_and_nothing_above_it(path: str) -> None:
    files = chosen(a_run(*SAVED), path)

    assert [file.path for file in files] == ["model/saved_model.pb", "model/variables/variables.index"]
    assert files[0].object_key == f"runs/{RUN}/1/outputs/model/saved_model.pb"
    assert (files[0].size_bytes, files[0].sha256) == (1, hashlib.sha256(b"x").hexdigest())


@pytest.mark.parametrize(
    ("path", "moved"), [("outputs/a.txt", ["a.txt"]), ("logs", ["logs/0.txt"]), ("outputs/nothing", []), ("output", [])]
)
def test_a_file_keeps_its_last_name_and_a_top_folder_its_own(path: str, moved: list[str]) -> None:
    assert [file.path for file in chosen(a_run(*SAVED), path)] == moved


@pytest.mark.parametrize("path", ["", "/", "/outputs", "../x", "outputs/../x", "outputs//model", "outputs\\model", "outputs/%2e%2e", "."])
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UserErrorException):
        chosen(a_run(*SAVED), path)


def test_the_digest_names_paths_and_contents_in_any_order() -> None:
    files = [artifact("b", b"2"), artifact("a", b"1")]
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))

    assert digest(files) == digest(reversed(files)) == hashlib.sha256(f"a\0{one}\nb\0{two}\n".encode()).hexdigest()


@pytest.mark.parametrize("changed", [artifact("b", b"1"), artifact("a", b"2")])
def test_another_path_or_content_has_another_digest(changed: object) -> None:
    assert digest([artifact("a", b"1")]) != digest([changed])  # type: ignore[list-item]


def test_what_looks_like_the_missing_path_is_told_first() -> None:
    failure = not_found(a_run(*SAVED, *(f"logs/{number:02}" for number in range(20))), "outputs/modle")

    assert (failure.code, failure.target) == ("ModelPathNotFound", "outputs/modle")
    assert "its files are: outputs/model/saved_model.pb, outputs/model/variables/variables.index, outputs/model2/x, " in failure.message
    assert failure.message.endswith(" and 5 more.")


def test_a_run_without_files_says_so() -> None:
    assert "its files are: none." in not_found(a_run(), "outputs/model").message
