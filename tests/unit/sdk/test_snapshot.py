import hashlib
from pathlib import Path

import pytest

from trainyard import SnapshotException
from trainyard._objects import MemoryObjects
from trainyard._snapshot import Found, Limits, check, take, walk


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
