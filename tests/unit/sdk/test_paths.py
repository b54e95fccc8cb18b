"""Paths that come from outside: none leads out of the folder it is joined to, and names that are merely odd are taken."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard._errors import UserErrorException
from trainyard._paths import below, safe_relpath, sha256_file

HOSTILE = {
    "empty": "",
    "here": ".",
    "up": "..",
    "up and away": "../etc/passwd",
    "up in the middle": "outputs/../../etc/passwd",
    "up at the end": "outputs/..",
    "here in the middle": "outputs/./model",
    "absolute": "/etc/passwd",
    "two slashes": "//host/share",
    "empty part": "outputs//model",
    "trailing slash": "outputs/",
    "backslash": "outputs\\..\\model",
    "backslash alone": "\\",
    "Windows drive": "C:/Windows",
    "Windows drive, relative": "C:evil",
    "small drive": "c:",
    "letter and colon": "a:b",
    "encoded dot": "%2e%2e/etc",
    "encoded dot, large": "outputs/%2E%2E/etc",
    "twice encoded dot": "%252e%252e/etc",
    "encoded slash": "outputs%2f..%2f..%2fetc",
    "encoded slash, large": "outputs%2Fmodel",
    "encoded backslash": "outputs%5c..%5Cetc",
    "NUL": "model\x00.pb",
    "line feed": "model\n.pb",
    "escape": "\x1b[2J",
    "delete": "a\x7fb",
    "trailing dot": "model.",
    "trailing dot inside": "outputs./model",
    "trailing space": "model ",
    "trailing space inside": "outputs /model",
    "three dots": "...",
    "NFD": unicodedata.normalize("NFD", "zürich"),
    "surrogate": "a\ud800b",
    "surrogate of a byte": os.fsdecode(b"\xff"),
    "too long": "a" * 1025,
    "too long in bytes": "ü" * 513,
}
ODD = [
    "outputs/model/saved_model.pb",
    "-rf",
    "--help",
    "~",
    "$HOME",
    "$(touch x)",
    "a b/c d",
    " leading space",
    ".hidden",
    "..hidden",
    "a..b",
    "zürich/列車/🚂",
    "a;b&c|d",
    "outputs/C:x",
    "100%",
    "50%off",
    "a" * 1024,
    "'\"`",
    "*?[x]",
]


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_path_is_refused(path: str) -> None:
    with pytest.raises(UserErrorException, match="no safe relative path"):
        safe_relpath(path)


@pytest.mark.parametrize("path", ODD)
def test_an_odd_path_is_taken_as_it_is(path: str) -> None:
    assert safe_relpath(path) == path


@given(st.text(max_size=60))
def test_whatever_is_taken_stays_below_any_folder(path: str) -> None:
    try:
        taken = safe_relpath(path)
    except UserErrorException:
        return

    assert os.path.normpath(os.path.join("/folder", taken)) == "/folder/" + taken


def test_a_refusal_names_the_path_and_can_be_told() -> None:
    with pytest.raises(UserErrorException) as caught:
        safe_relpath("../etc/passwd")

    assert "'../etc/passwd'" in str(caught.value)
    assert caught.value.target == "../etc/passwd"


def test_a_path_below_a_folder_is_found_there(tmp_path: Path) -> None:
    assert below(tmp_path, "outputs/model") == tmp_path / "outputs" / "model"


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to("/etc/passwd")

    for path in ("out/secret", "out", "file"):
        with pytest.raises(UserErrorException, match="by a link"):
            below(folder, path)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert below(tmp_path, "link/model") == tmp_path / "link" / "model"


def test_a_sibling_whose_name_begins_alike_is_not_below(tmp_path: Path) -> None:
    folder, sibling = tmp_path / "run", tmp_path / "run2"
    folder.mkdir()
    sibling.mkdir()
    (folder / "link").symlink_to(sibling)

    with pytest.raises(UserErrorException, match="by a link"):
        below(folder, "link/model")


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content = b"0123456789" * 300_000
    (tmp_path / "file").write_bytes(content)

    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
