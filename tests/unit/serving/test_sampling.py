"""Sampled calls on their way out of a server: what is kept, what is dropped, and what another process finds."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from errno import EMFILE
from pathlib import Path

import pytest

from services.serving.sampling import spool
from services.serving.sampling.call import MOST_CONTENT, TENSORFLOW_REST, Body, Call, Sample, parsed, to_bytes
from services.serving.sampling.sampler import ABOUT, Sampler
from services.serving.sampling.spool import Full, Spool

PATH = "/v1/models/half:predict"


def a_call(request: bytes = b"asked", response: bytes = b"answered", path: str = PATH) -> Call:
    return Call(TENSORFLOW_REST, "POST", path, 200, 1_700_000_000_000_000_000, 1500, Body(request, "application/json"), Body(response))


def one(data: bytes) -> Sample:
    (found,) = parsed(data)
    assert found is not None
    return found


def wants(folder: Path, rate: float) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / ABOUT).write_text(json.dumps({"rate": rate}))
    return folder


def taken(folder: Path) -> list[Sample | None]:
    found = []
    for path in spool.closed(folder):
        with spool.taken(path) as data:
            found += list(parsed(data or b""))
    return found


# -- records


def test_a_record_is_read_as_the_call_that_it_was() -> None:
    sample = one(to_bytes(a_call()))

    assert (sample.protocol, sample.method, sample.path, sample.status) == (TENSORFLOW_REST, "POST", PATH, 200)
    assert (sample.request.content, sample.request.content_type, sample.response.content) == (b"asked", "application/json", b"answered")
    assert (sample.request.size_bytes, sample.request.sha256, sample.latency_ns) == (5, "", 1500)
    assert sample.sample_id != one(to_bytes(a_call())).sample_id


def test_what_is_too_large_is_cut_and_says_so_with_its_size_and_digest() -> None:
    whole = os.urandom(MOST_CONTENT + 1)

    request = one(to_bytes(a_call(request=whole))).request

    assert request.content == whole[:MOST_CONTENT]
    assert (request.size_bytes, request.sha256) == (MOST_CONTENT + 1, hashlib.sha256(whole).hexdigest())
    assert one(to_bytes(a_call(request=whole[:-1]))).request.sha256 == ""


@pytest.mark.parametrize("spoil", [lambda it: it[:-1], lambda it: it[:10], lambda it: it[:20] + b"\0" + it[21:], lambda it: b"\xff" * 40, lambda it: b"\0" * 16])  # fmt: skip
def test_what_follows_a_broken_record_is_not_read_and_what_was_before_it_is(spoil: Callable[[bytes], bytes]) -> None:
    good = to_bytes(a_call())

    first, broken = parsed(good + spoil(to_bytes(a_call())))

    assert first is not None
    assert broken is None


@pytest.mark.parametrize("changed", [("id", "../../etc"), ("status", "200"), ("path", "p" * 9000), ("path", "\ud800"), ("at_ns", -1), ("protocol", 77), ("request", {})])  # fmt: skip
def test_a_record_whose_fields_are_none_is_no_record(changed: tuple[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of a user's may write what it likes, with the right checksum."""
    dumps = json.dumps
    monkeypatch.setattr("services.serving.sampling.call.json.dumps", lambda told: dumps({**told, changed[0]: changed[1]}))

    assert list(parsed(to_bytes(a_call()))) == [None]


# -- the spool


def test_nobody_takes_a_file_that_is_being_written(tmp_path: Path) -> None:
    writing = Spool(tmp_path)
    writing.append(b"record")

    (path,) = spool.closed(tmp_path)
    with spool.taken(path) as data:
        assert data is None
    writing.close()

    with spool.taken(path) as data:
        assert data == b"record"
    assert spool.closed(tmp_path) == []


def test_a_file_stays_where_its_reader_fails(tmp_path: Path) -> None:
    writing = Spool(tmp_path)
    writing.append(b"record")
    writing.close()
    (path,) = spool.closed(tmp_path)

    with pytest.raises(RuntimeError), spool.taken(path):
        raise RuntimeError("Kafka is away")

    with spool.taken(path) as data:
        assert data == b"record"


def test_what_a_killed_process_left_behind_is_taken(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        Spool(tmp_path).append(to_bytes(a_call()))
        os._exit(0)
    os.waitpid(child, 0)

    assert [it.request.content for it in taken(tmp_path) if it] == [b"asked"]


def test_a_forked_child_that_lives_on_keeps_no_file_from_its_reader(tmp_path: Path) -> None:
    writing = Spool(tmp_path)
    writing.append(b"record")
    (path,) = spool.closed(tmp_path)
    inherited = os.dup(writing._file.fileno()) if writing._file else -1

    writing.close()

    with spool.taken(path) as data:
        assert data == b"record"
    os.close(inherited)


def test_a_full_folder_takes_no_more_until_somebody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_LOOK_SECONDS", 0)
    writing = Spool(tmp_path, most_bytes=100)
    writing.append(b"x" * 60)

    with pytest.raises(Full):
        writing.append(b"x" * 60)
    (path,) = spool.closed(tmp_path)
    with spool.taken(path) as data:
        assert len(data or b"") == 60
    writing.append(b"x" * 60)
    writing.close()

    assert len(spool.closed(tmp_path)) == 1


def test_what_is_no_file_of_samples_is_taken_as_an_empty_one_and_goes(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "1-link.samples").symlink_to(outside)
    os.mkfifo(folder / "2-pipe.samples")
    with (folder / "3-large.samples").open("wb") as file:
        file.truncate(1 << 30)

    contents = []
    for path in spool.closed(folder):
        with spool.taken(path) as data:
            contents.append(data)

    assert contents == [b"", b"", b""]
    assert (spool.closed(folder), outside.read_bytes()) == ([], b"secret")


def test_what_cannot_be_removed_is_said_and_what_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.samples").mkdir()
    whole = tmp_path / "2.samples"
    whole.write_bytes(b"record")

    def too_many(path: Path, flags: int) -> int:
        raise OSError(EMFILE, "too many open files")

    with pytest.raises(OSError), spool.taken(tmp_path / "1.samples") as data:
        assert data == b""
    with monkeypatch.context() as patch:
        patch.setattr("services.serving.sampling.spool.os.open", too_many)
        with pytest.raises(OSError), spool.taken(whole):
            pass

    held = [os.path.realpath(it.path) for it in os.scandir("/proc/self/fd")]
    assert str(tmp_path / "1.samples") not in held
    assert whole.read_bytes() == b"record"


def test_of_very_many_files_the_first_are_looked_at(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        (tmp_path / f"{number}.samples").touch()

    assert [it.name for it in spool.closed(tmp_path, most=2)] == ["1.samples", "2.samples"]


def test_a_full_disk_leaves_no_half_record_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Spool(tmp_path)
    writing.append(b"whole")
    file = writing._file
    assert file is not None

    class Short:
        def write(self, record: bytes) -> int:
            return file.write(record[:2])

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

        def __enter__(self) -> object:
            return file

        def __exit__(self, *_: object) -> None:
            file.close()

    writing._file = Short()  # type: ignore[assignment]
    with pytest.raises(OSError):
        writing.append(b"half of it")

    (path,) = spool.closed(tmp_path)
    assert path.read_bytes() == b"whole"


# -- the sampler


def test_nothing_is_sampled_without_a_folder_and_at_rate_0(tmp_path: Path) -> None:
    assert (Sampler().rate, Sampler().metrics()) == (0.0, "")
    assert Sampler(wants(tmp_path, 0)).rate == 0.0


@pytest.mark.parametrize("text", ["", "{}", '{"rate": 2}', '{"rate": -1}', '{"rate": NaN}', '{"rate": []}', "[]"])
def test_a_file_that_says_nothing_of_use_asks_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ABOUT).write_text(text)

    assert Sampler(tmp_path).rate == 0.0


def test_chance_decides_by_the_rate(tmp_path: Path) -> None:
    chances = iter((0.0, 0.24, 0.25, 0.99))
    sampler = Sampler(wants(tmp_path, 0.25), lambda: next(chances))

    assert [sampler.chosen() for _ in range(4)] == [True, True, False, False]


def test_what_was_taken_is_there_once_the_sampler_is_closed(tmp_path: Path) -> None:
    sampler = Sampler(wants(tmp_path, 1))

    for number in range(5):
        sampler.take(a_call(request=b"%d" % number))
    sampler.close()

    assert [it.request.content for it in taken(tmp_path) if it] == [b"0", b"1", b"2", b"3", b"4"]
    assert 'samples_total{outcome="kept"} 5' in sampler.metrics()
    assert 'samples_total{outcome="dropped"} 0' in sampler.metrics()


def test_calls_that_come_faster_than_they_are_written_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(wants(tmp_path, 1))
    sampler.close()
    monkeypatch.setattr(sampler, "_ends", False)  # nobody writes any more

    for _ in range(1003):
        sampler.take(a_call())

    assert sampler.dropped == 3


def test_one_call_of_any_size_is_taken_and_a_second_one_beside_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(wants(tmp_path, 1))
    sampler.close()
    monkeypatch.setattr(sampler, "_ends", False)

    sampler.take(a_call(request=bytes(9 << 20)))
    sampler.take(a_call())

    assert (len(sampler._waiting), sampler.dropped) == (1, 1)


def test_a_folder_that_is_gone_drops_and_delays_nobody(tmp_path: Path) -> None:
    folder = wants(tmp_path / "spool", 1)
    sampler = Sampler(folder)
    (folder / ABOUT).unlink()
    folder.rmdir()

    sampler.take(a_call())
    sampler.close()

    assert (sampler.kept, sampler.dropped) == (0, 1)


def test_the_lock_is_what_tells_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "x.samples"
    path.write_bytes(b"record")
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with spool.taken(path) as data:
            assert data is None
    with spool.taken(path) as data:
        assert data == b"record"
