from __future__ import annotations

import pytest
import yaml

from deploy.events_page import PAGE, REPO, Comments, page
from deploy.local import assemble

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def descriptors() -> bytes:
    return assemble.descriptors()


def test_the_page_is_what_protos_and_topics_say(descriptors: bytes) -> None:
    assert PAGE.read_text() == page(descriptors), "run `make protos` and commit docs/events.md"


def test_every_request_and_fact_of_the_protos_has_its_topic(descriptors: bytes) -> None:
    known = Comments(descriptors)
    listed = yaml.safe_load((REPO / "deploy" / "topics.yaml").read_text())["messages"]
    told = {f"trainyard.{short}" for kinds in listed.values() for names in kinds.values() for short in names}

    said = {name for name, comment in known.comments.items() if comment.startswith(("Request", "Fact"))}

    assert said - told == set()


def test_every_field_is_commented(descriptors: bytes) -> None:
    known = Comments(descriptors)

    bare = [
        f"{name}.{field.name}"
        for name, message in known.messages.items()
        for index, field in enumerate(message.field)
        if not known.fields.get((name, index))
    ]

    assert bare == []
