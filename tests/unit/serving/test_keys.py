"""Keys, tokens, and the file by which servers check them."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.serving.access import Access
from services.serving.adapters.endpoint_keys import TOKEN_LASTS, EndpointKeys, key_file
from services.serving.domain.endpoint import Endpoint
from tests.unit.serving.builders import after, live, starting
from trainyard.endpoint.v1 import endpoint_pb2 as pb


def asking(authentication: int) -> Endpoint:
    return after(starting(settings=pb.EndpointSettings(authentication=authentication)), live())


def opens(home: Path, key: str | None) -> bool:
    return not Access(key_file(home, "digits")).refusal(None if key is None else f"Bearer {key}")


def test_keys_are_made_from_the_homes_secret_and_the_endpoints_history(tmp_path: Path) -> None:
    endpoint = asking(pb.AUTHENTICATION_KEY)
    keys = EndpointKeys(tmp_path / "one")

    first = keys.keys(endpoint)

    assert EndpointKeys(tmp_path / "one").keys(endpoint) == first
    assert EndpointKeys(tmp_path / "one").keys(replace(endpoint, keys_made=(1, 0)))[1] == first[1]
    others = [
        *EndpointKeys(tmp_path / "two").keys(endpoint),
        keys.keys(replace(endpoint, keys_made=(1, 0)))[0],
        *keys.keys(replace(endpoint, born=2)),
        *keys.keys(replace(endpoint, name="words")),
        *EndpointKeys(tmp_path / "one", "set").keys(endpoint),
    ]
    assert len({*first, *others}) == 2 + len(others)


def test_a_server_lets_in_who_has_a_key_of_now(tmp_path: Path) -> None:
    keys, endpoint = EndpointKeys(tmp_path), asking(pb.AUTHENTICATION_KEY)
    keys.keep(endpoint)
    before = keys.keys(endpoint)
    assert [opens(tmp_path, key) for key in (*before, "guess", "", None)] == [True, True, False, False, False]

    renewed = replace(endpoint, keys_made=(0, 1))
    keys.keep(renewed)

    assert [opens(tmp_path, key) for key in (*before, *keys.keys(renewed))] == [True, False, True, True]
    told = key_file(tmp_path, "digits").read_text()
    assert not [key for key in keys.keys(renewed) if key in told]


def test_a_token_opens_until_it_ends_and_a_key_does_not(tmp_path: Path) -> None:
    keys, endpoint = EndpointKeys(tmp_path), asking(pb.AUTHENTICATION_TOKEN)
    keys.keep(endpoint)
    now = datetime.now(UTC)

    token, ends = keys.token(endpoint, now)
    old, _ = keys.token(endpoint, now - TOKEN_LASTS - timedelta(seconds=2))
    stretched = f"{int(ends.timestamp()) + 1}.{token.partition('.')[2]}"

    assert [opens(tmp_path, it) for it in (token, old, stretched, keys.keys(endpoint)[0], "", ".", "-1.x", "²." + token)] == [True] + [
        False
    ] * 7


def test_an_endpoint_that_asks_for_nothing_is_open_and_one_whose_file_is_gone_is_not(tmp_path: Path) -> None:
    EndpointKeys(tmp_path).keep(asking(pb.AUTHENTICATION_NONE))
    assert opens(tmp_path, None)

    key_file(tmp_path, "digits").unlink()

    assert not opens(tmp_path, None)
    assert Access().refusal(None) == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "key"}', "\x00"])
def test_a_file_that_makes_no_sense_lets_nobody_in(tmp_path: Path, text: str) -> None:
    path = key_file(tmp_path, "digits")
    path.parent.mkdir()
    path.write_text(text)

    assert not opens(tmp_path, "anything")


def test_what_is_secret_is_for_its_owner_alone_and_written_only_where_it_changes(tmp_path: Path) -> None:
    keys, endpoint = EndpointKeys(tmp_path), asking(pb.AUTHENTICATION_TOKEN)
    keys.keep(endpoint)
    path = key_file(tmp_path, "digits")
    first = path.stat().st_ino

    keys.keep(endpoint)

    assert path.stat().st_ino == first
    for secret in (path, tmp_path / "secrets" / "endpoints"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text())["signs"]


@pytest.mark.parametrize("left", ["", "short"])
def test_a_secret_that_was_cut_off_makes_no_keys(tmp_path: Path, left: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "endpoints").write_text(left)

    with pytest.raises(RuntimeError, match="holds no secret: put the old one back"):
        EndpointKeys(tmp_path)


def test_a_secret_is_its_owners_alone_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    EndpointKeys(tmp_path)

    (made,) = (tmp_path / "secrets").iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
