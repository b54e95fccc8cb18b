import hashlib
import os
from pathlib import Path

import pytest

from trainyard import SnapshotException
from trainyard._errors import TrainyardException
from trainyard._objects import MemoryObjects
from trainyard._snapshot import Found, Limits, check, listed, restore, take, walk
from trainyard.job.v1.spec_pb2 import Snapshot


class Store(MemoryObjects):
    """Remembers what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def put_bytes(self, key: str, data: bytes) -> None:
        self.sent.append(key)
        super().put_bytes(key, data)


def write(root: Path, path: str, text: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def paths(folder: Path) -> list[str]:
    return sorted(found.path for found in walk(folder))


def test_amlignore_wins_over_gitignore(tmp_path: Path) -> None:
    write(tmp_path, ".gitignore", "kept.txt\n")
    write(tmp_path, ".amlignore", "secret.txt\nbig/\n!big/\nbig/*.bin\n")
    for path in ("kept.txt", "secret.txt", "big/a.bin", "big/b.txt"):
        write(tmp_path, path)

    assert paths(tmp_path) == [".amlignore", ".gitignore", "big/b.txt", "kept.txt"]


def test_what_never_belongs_into_a_run_is_left_out_and_can_be_taken_back(tmp_path: Path) -> None:
    for path in (".git/config", "a/__pycache__/m.pyc", ".venv/lib/x.py", "outputs/old.bin", "a/outputs/kept.txt", "train.py"):
        write(tmp_path, path)
    assert paths(tmp_path) == ["a/outputs/kept.txt", "train.py"]

    write(tmp_path, ".amlignore", "!/outputs/\n")
    assert "outputs/old.bin" in paths(tmp_path)


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "src/train.py")
    (tmp_path / "src" / "round").symlink_to(tmp_path / "src")

    assert paths(tmp_path / "src") == ["train.py"]


def test_a_broken_link_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")

    with pytest.raises(SnapshotException, match="gone.txt"):
        paths(tmp_path)


def test_too_many_bytes_name_the_biggest_paths() -> None:
    files = [Found("data/a.bin", 250_000_000, False), Found("data/b.bin", 60_000_000, False), Found("train.py", 10, False)]

    with pytest.raises(SnapshotException, match=r"limit of 300\.0 MB.*310\.0 MB.*data/ \(310\.0 MB\)") as caught:
        check(files, Limits())
    assert ".amlignore" in caught.value.hint


def test_too_many_files_name_the_fullest_folders() -> None:
    files = [Found(f"env/lib/{number}.py", 1, False) for number in range(2000)] + [Found("train.py", 1, False)]

    with pytest.raises(SnapshotException, match=r"file limit of 2000: it has 2001.*env/ \(2000 files\)"):
        check(files, Limits())


def test_at_the_limits_nothing_is_refused() -> None:
    check([Found(str(number), 150_000, False) for number in range(2000)], Limits())


def test_the_limits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_SNAPSHOT_MAX_FILES", "5")

    assert Limits.load() == Limits(300_000_000, 5)


def test_only_missing_blobs_are_sent_and_each_once(tmp_path: Path) -> None:
    store = Store()
    for path in ("train.py", "same.py"):
        write(tmp_path, path, "print()")
    first = take(tmp_path, store)
    assert len(store.sent) == 1

    write(tmp_path, "other.py", "1")
    second = take(tmp_path, store)

    assert store.sent[1:] == [f"snapshots/blobs/{hashlib.sha256(b'1').hexdigest()}"]
    assert first.id != second.id
    assert [file.path for file in second.files] == ["other.py", "same.py", "train.py"]


def test_the_id_is_the_digest_of_paths_and_digests(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "1")
    digest = hashlib.sha256(b"1").hexdigest()

    snapshot = take(tmp_path, Store())

    assert snapshot.id == hashlib.sha256(f"a.txt\0{digest}\n".encode()).hexdigest()


def test_the_executable_bit_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "run.sh")
    (tmp_path / "run.sh").chmod(0o755)

    assert take(tmp_path, Store()).files[0].executable


# -- links, names, folders


def test_a_link_to_a_file_inside_is_followed_and_one_that_leads_out_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "outside.txt", "secret")
    write(tmp_path, "src/train.py", "print()")
    (tmp_path / "src" / "same.py").symlink_to("train.py")
    store = Store()

    snapshot = take(tmp_path / "src", store)
    (tmp_path / "src" / "out.txt").symlink_to(tmp_path / "outside.txt")

    assert [(file.path, file.sha256) for file in snapshot.files] == [
        (path, hashlib.sha256(b"print()").hexdigest()) for path in ("same.py", "train.py")
    ]
    with pytest.raises(SnapshotException, match=r"out\.txt is a link to .*outside\.txt, which lies outside") as caught:
        take(tmp_path / "src", store)
    assert ".amlignore" in caught.value.hint


def test_links_in_a_circle_are_an_error_that_names_one(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(SnapshotException, match="a cannot be read"):
        paths(tmp_path)


def test_odd_names_travel_in_form_c(tmp_path: Path) -> None:
    for name in ("-rf", "with space", "#x", "!y", "u\u0308"):
        write(tmp_path, name)

    assert paths(tmp_path) == ["!y", "#x", "-rf", "with space", "\u00fc"]


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x7f", "a ", "a.", "a\udcff"])
def test_a_name_that_a_node_must_not_be_given_is_refused_by_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")

    with pytest.raises(SnapshotException, match="cannot be part of a snapshot") as caught:
        paths(tmp_path)
    assert caught.value.target == ascii(name)
    assert "\n" not in caught.value.message


def test_two_names_that_differ_in_form_only_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "u\u0308")
    write(tmp_path, "\u00fc")

    with pytest.raises(SnapshotException, match="have one name"):
        take(tmp_path, Store())


def test_empty_folders_are_kept_and_count_in_the_id(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    without = take(tmp_path, Store())
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()

    snapshot = take(tmp_path, Store())

    assert list(snapshot.empty_folders) == ["data/raw"]
    assert snapshot.id != without.id


def test_what_is_being_written_to_while_it_is_sent_is_told(tmp_path: Path) -> None:
    write(tmp_path, "log.txt", "1")

    class Slow(Store):
        def exists(self, key: str) -> bool:
            write(tmp_path, "log.txt", "2")
            return False

    with pytest.raises(SnapshotException, match=r"log\.txt changed while it was being sent"):
        take(tmp_path, Slow())


# -- many files


def test_many_files_are_asked_for_by_one_listing_and_named_by_one_object(tmp_path: Path) -> None:
    asked: list[str] = []

    class Counting(Store):
        def exists(self, key: str) -> bool:
            asked.append(key)
            return super().exists(key)

    for number in range(5_000):
        (tmp_path / f"{number}.txt").write_text(str(number))
    store = Counting()

    first = take(tmp_path, store, Limits(max_files=5_000))
    sent = len(store.sent)
    (tmp_path / "7.txt").write_text("other")
    second = take(tmp_path, store, Limits(max_files=5_000))

    assert asked == []
    assert (sent, len(store.sent)) == (5_001, 5_003)
    assert (first.ByteSize() < 1000, first.count, len(first.files)) == (True, 5_000, 0)
    assert len(listed(store, first).files) == 5_000 and first.id != second.id


def test_a_list_that_was_tampered_with_is_refused() -> None:
    store = Store()
    store.put_bytes(f"snapshots/trees/{'0' * 64}", b"")

    with pytest.raises(TrainyardException, match="its digest differs"):
        listed(store, Snapshot(id="s", manifest_key="elsewhere", manifest_sha256="0" * 64))


def test_a_snapshot_is_restored_as_it_was(tmp_path: Path) -> None:
    store = Store()
    for path in ("train.py", "deep/er/-x", "run.sh"):
        write(tmp_path / "src", path, path)
    (tmp_path / "src/run.sh").chmod(0o755)
    (tmp_path / "src/empty").mkdir()
    snapshot = take(tmp_path / "src", store)
    write(tmp_path / "back", "train.py", "older")
    write(tmp_path / "back", "mine.py", "mine")

    restore(store, snapshot, tmp_path / "back")

    assert {path: (tmp_path / "back" / path).read_text() for path in paths(tmp_path / "back")} == {
        "train.py": "train.py",
        "deep/er/-x": "deep/er/-x",
        "run.sh": "run.sh",
        "mine.py": "mine",
    }
    assert os.access(tmp_path / "back/run.sh", os.X_OK) and (tmp_path / "back/empty").is_dir()
