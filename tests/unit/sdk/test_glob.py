"""Globs match as their regular expressions would, and no pattern keeps a service busy."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard._glob import Part, Wild, matcher
from trainyard._ignore import IgnoreRules
from trainyard._stored_sources import expand

pytestmark = pytest.mark.security

_PARTS = st.lists(st.sampled_from(["a", "b", "/", "[^/]", "(?!/)[a-b]", "(?!)", *Wild]), max_size=9)


@given(parts=_PARTS, text=st.text("ab/", max_size=12))
def test_a_glob_matches_what_its_regular_expression_matches(parts: list[Part], text: str) -> None:
    regex = "".join(part.value if isinstance(part, Wild) else part for part in parts)

    found = matcher(parts)(text)

    assert found == (re.fullmatch(regex, text, re.DOTALL) is not None)


@pytest.mark.parametrize(
    "pattern", ["*a" * 40 + "b", "**/a/" * 40 + "b", "a/**/" * 40 + "*a" * 40 + "b", "x/" + "*a" * 40 + "/**/" + "*a" * 40 + "b"]
)
@pytest.mark.timeout(60)
def test_an_ignore_rule_with_many_stars_is_matched_at_once(pattern: str) -> None:
    rules = IgnoreRules([pattern])

    found = [rules.ignores(path) for path in ("a" * 1000, "a/" * 500 + "c", "x/" + "a" * 1000 + "c")]

    assert found == [False, False, False]


@pytest.mark.parametrize("glob", ["*a" * 40 + "b", "**/a/" * 40 + "b", "**a" * 40 + "b", "****/" * 40 + "b"])
@pytest.mark.timeout(60)
def test_a_glob_with_many_stars_is_matched_at_once(glob: str) -> None:
    from trainyard._datastore_files import StoredFile
    from trainyard._errors import UserErrorException
    from trainyard.dataset.v1.dataset_pb2 import SourceFile

    there = [StoredFile(path, 1, "0" * 64, "datastores/blobs/" + "0" * 64) for path in ("a" * 1000, "a/" * 500 + "c")]

    with pytest.raises(UserErrorException, match="has no file"):
        expand([f"datastore://workspaceblobstore/{glob}"], lambda _, __: there, SourceFile)
