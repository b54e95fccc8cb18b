"""What was written once is read as what it meant, by this version and by every later one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from services.chassis.topics import FILE
from tests.contract.golden_messages import FOLDER, example, path_of, travelling
from trainyard import _cloudevents

pytestmark = pytest.mark.contract
NAMES = sorted(path.name.removesuffix(".json") for path in FOLDER.glob("*.json"))


def kept(name: str) -> tuple[dict[str, Any], bytes]:
    content = json.loads(path_of(name).read_text())
    return content["message"], bytes.fromhex(content["hex"])


def test_every_message_that_travels_has_its_golden_bytes() -> None:
    missing = sorted(name for name in travelling() if not path_of(name).exists())

    assert not missing, "run python -m tests.contract.golden_messages and look at what it writes"


def test_every_message_that_the_topics_are_said_to_carry_travels() -> None:
    listed = yaml.safe_load(FILE.read_text())["messages"]

    names = {f"trainyard.{name}" for kinds in listed.values() for those in kinds.values() for name in those}

    assert names == travelling().keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_old_bytes_still_mean_what_they_meant(name: str) -> None:
    meaning, old = kept(name)

    message = _cloudevents.message_class(name).FromString(old)

    assert json_format.MessageToDict(message) == meaning


@pytest.mark.parametrize("name", NAMES)
def test_the_same_meaning_is_still_written_as_the_same_bytes(name: str) -> None:
    meaning, old = kept(name)

    message = json_format.ParseDict(meaning, _cloudevents.message_class(name)())

    assert message.SerializeToString(deterministic=True) == old


@pytest.mark.parametrize("name", NAMES)
def test_an_example_leaves_out_no_field(name: str) -> None:
    """Examples of today's messages, so that a golden that is written tomorrow covers what was added."""
    message = example(_cloudevents.message_class(name))

    unset = [field.name for field in message.DESCRIPTOR.fields if not field.containing_oneof and not _is_set(message, field.name)]

    assert unset == []


def _is_set(message: Any, field: str) -> bool:
    return field in {known.name for known, _ in message.ListFields()}
