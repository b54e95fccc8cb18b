"""Files that no model may hold, told by name and by what they begin with. No payload may run: each leaves a canary if it does."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from trainyard import _keras_archive
from trainyard._model_contents import HEAD_BYTES, by_head, by_name

pytestmark = pytest.mark.security
CANARY = Path("/tmp/trainyard-canary-of-the-model-tests")


class Payload:
    def __reduce__(self) -> Any:
        return CANARY.touch, ()


def said(path: str, content: bytes) -> str:
    return by_head(path, content[:HEAD_BYTES], len(content))


def a_zip(**members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def a_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("model/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return packed.getvalue()


@pytest.fixture(autouse=True)
def nothing_ran() -> Any:
    CANARY.unlink(missing_ok=True)
    yield
    assert not CANARY.exists()


@pytest.mark.parametrize("path", ["m/a.zip", "m/a.TAR.gz", "m/a.tgz", "m/a.7z", "m/a.whl", "m/a.npz", "a.rar", "m/a.tar.zst"])
def test_an_archive_is_told_by_its_name(path: str) -> None:
    assert "is an archive" in by_name(path)


@pytest.mark.parametrize("path", ["m/a.pkl", "m/a.joblib", "a.PICKLE", "m/a.pt", "m/a.cloudpickle"])
def test_a_pickle_is_told_by_its_name(path: str) -> None:
    assert "is a pickle" in by_name(path)


@pytest.mark.parametrize("content", [a_zip(a=b"x"), a_zip(), a_tar(), gzip.compress(a_tar()), bz2.compress(a_tar()), lzma.compress(a_tar()), b"7z\xbc\xaf\x27\x1c...", b"Rar!\x1a\x07\x00"])  # fmt: skip
def test_an_archive_under_another_name_is_told_by_its_first_bytes(content: bytes) -> None:
    assert "is an archive" in said("model/assets/vocabulary", content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [Payload(), {"weights": [0.5, 1.5]}, [{"n": i} for i in range(10_000)] + [Payload()]], ids=["code", "data", "large"])  # fmt: skip
def test_a_pickle_under_another_name_is_told_whatever_its_protocol(value: Any, protocol: int) -> None:
    content = pickle.dumps(value, protocol)

    assert "is a pickle" in said("model/weights.bin", content)
    assert "is a pickle" in said("model/weights.bin", gzip.compress(content)) or len(content) > 1024


@pytest.mark.parametrize("start", [0, 512, 2048])
def test_hdf5_is_told_wherever_it_may_begin(start: int) -> None:
    assert "is HDF5" in said("model/weights", bytes(start) + b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert "is HDF5" in by_name("model/weights.H5")


def test_an_array_of_objects_is_a_pickle_and_one_of_numbers_is_none() -> None:
    header = "\x93NUMPY\x01\x00v\x00{{'descr': {}, 'fortran_order': False, 'shape': (1,), }}"

    assert "is a pickle" in said("m/a.npy", header.format("'|O'").encode("latin-1"))
    assert said("m/a.npy", header.format("'<f4'").encode("latin-1")) == ""


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("model/saved_model.pb", b"\x08\x01\x12\xb2\xd5\x01\n\x80\x02"),
        ("model/variables/variables.data-00000-of-00001", b"\x80\x3f\x00\x00" * 4096),
        ("model/variables/variables.index", b"\x00\x00\x0f\x08\x01\x1a\x02\x08\x01"),
        ("model/assets/labels.txt", b"cat\ndog\n"),
        ("model/assets/labels.txt", b"I1\n."),
        ("model/assets/vocabulary.gz", gzip.compress(b"cat\ndog\n" * 1000)),
        ("model/assets/broken.gz", b"\x1f\x8b\x08garbage"),
        ("model.tflite", b"\x1c\x00\x00\x00TFL3"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch"),
        ("model/empty", b""),
        ("model/notes.json", b'{"class_name": "dog"}'),
    ],
)
def test_what_models_are_made_of_is_taken(path: str, content: bytes) -> None:
    assert said(path, content) == ""


# -- Keras archives

LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "evil", "function": {"class_name": "__lambda__"}}}
DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "dense", "units": 3}, "registered_name": None}


def a_model(*layers: Any) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "sequential", "layers": list(layers)}}


def an_archive(config: Any, **members: bytes) -> bytes:
    return a_zip(**{"metadata.json": b"{}", "config.json": json.dumps(config).encode(), "model.weights.h5": b"w", **members})


def looked_into(content: bytes) -> str:
    return _keras_archive.refused(io.BytesIO(content))


def test_an_archive_of_keras_own_layers_is_taken() -> None:
    assert looked_into(an_archive(a_model(DENSE))) == ""
    assert said("m.keras", an_archive(a_model(DENSE))) == ""


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (LAMBDA, "'evil', a Lambda"),
        ({"class_name": "keras>Lambda", "config": {"name": "old"}}, "a Lambda"),
        ({"module": "os", "class_name": "function", "config": "system"}, "module 'os'"),
        ({"module": "keras_evil", "class_name": "Dense", "config": {}}, "module 'keras_evil'"),
        ({"module": "builtins", "class_name": "function", "config": "eval"}, "module 'builtins'"),
        ({"class_name": "TimeDistributed", "config": {"layer": LAMBDA}}, "a Lambda"),
    ],
)
def test_an_archive_that_has_keras_run_code_is_refused_with_the_layer_named(layer: Any, why: str) -> None:
    assert why in looked_into(an_archive(a_model(DENSE, layer)))
    assert why in _keras_archive.refused_json(json.dumps(a_model(layer)).encode())


def test_a_json_that_is_no_architecture_is_left_alone() -> None:
    for content in (b"{", b"[]", b'{"class_name": "Lambda"}', b"[" * 100_000):
        assert _keras_archive.refused_json(content) == ""


def a_link() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo("weights")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return packed.getvalue()


def a_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(4 << 20))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (an_archive(a_model(), **{"../../etc/cron.d/x": b"x"}), "would be written elsewhere"),
        (an_archive(a_model(), **{"/etc/passwd": b"x"}), "would be written elsewhere"),
        (an_archive(a_model(), **{"a\\..\\b": b"x"}), "would be written elsewhere"),
        (a_link(), "is a link"),
        (a_bomb(), "inflates"),
        (a_zip(a=b"x"), "has no config.json"),
        (a_zip(**{"config.json": b"{"}), "is no JSON"),
        (a_zip(**{"config.json": b"[" * 100_000}), "is no JSON"),
        (a_zip(**{f"m{number}": b"" for number in range(10_001)}), "of 10001 members"),
        (b"PK\x03\x04 and no more", "does not end as a zip"),
        (b"PK\x05\x06" + b"\xff" * 18, "directory of 4294967295 bytes"),
        (an_archive(a_model(DENSE))[:-30] + b"PK\x05\x06" + b"\x01" * 18, "bytes"),
    ],
)
def test_a_hostile_archive_is_refused_with_the_reason(content: bytes, why: str) -> None:
    assert why in looked_into(content)


def test_a_keras_archive_that_is_none_is_refused() -> None:
    assert "is no Keras archive" in said("model.keras", pickle.dumps(Payload()))
