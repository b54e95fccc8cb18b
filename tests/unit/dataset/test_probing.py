from collections.abc import Sequence
from datetime import UTC, datetime

from services.chassis import codec
from services.dataset.domain import Asked
from services.dataset.handlers import Probed
from services.dataset.ports import Progress, Unreachable
from services.dataset.probing import Probing
from trainyard.dataset.v1.dataset_pb2 import RegisterDataset, SourceFile
from trainyard.event.v1.artifact_pb2 import Failure

AT = datetime(2026, 1, 1, tzinfo=UTC)
URLS = ["http://h:80/a%20b", "https://h/c?d"]
INTENT = codec.dumps(Asked(RegisterDataset(submission_id="s1", name="mnist", urls=URLS), "e1", "c1"))


class Shelved:
    """Sources that hold one byte each, but for those that cannot be read."""

    def __init__(self, *unreachable: str) -> None:
        self._unreachable = unreachable

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        for number, url in enumerate(urls, 1):
            if url in self._unreachable:
                raise Unreachable(url, "the connection was refused")
            progress(number, number)
        return [SourceFile(url=url, path=url.partition("//")[2], size_bytes=1, sha256="0" * 64) for url in urls]


async def test_what_lies_at_the_sources_becomes_the_answer() -> None:
    command = await Probing(Shelved(), lambda: AT)(INTENT)

    assert (command.cause_id, command.correlation_id) == ("e1", "c1")
    probed = command.payload
    assert isinstance(probed, Probed)
    assert (probed.submission_id, probed.at) == ("s1", AT)
    assert not isinstance(probed.found, Failure)
    assert [(file.url, file.path) for file in probed.found] == [(url, url.partition("//")[2]) for url in URLS]


async def test_a_source_that_cannot_be_read_is_told_by_its_url() -> None:
    command = await Probing(Shelved(URLS[1]), lambda: AT)(INTENT)

    found = command.payload.found
    assert isinstance(found, Failure)
    assert (found.code, found.target) == ("SourceUnreachable", URLS[1])
    assert "the connection was refused" in found.message
