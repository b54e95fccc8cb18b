"""The datasets that the registration of a model names, for its lineage. Standard library only: scripts name them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainyard._errors import UserErrorException


def purposes(datasets: Any, sample_input: Any = None, sample_output: Any = None) -> list[tuple[str, Any]]:
    """(purpose, dataset) of datasets and pairs (purpose, dataset), in their order. Raises UserErrorException for what is no list of them."""
    if datasets is not None and (isinstance(datasets, str) or not isinstance(datasets, Sequence)):
        what = f"datasets is a list of registered datasets, or of pairs (purpose, dataset), not {datasets!r}."
        raise UserErrorException(what, target="datasets", hint="write datasets=[('training', dataset)]")
    pairs = [_pair(item) for item in datasets or ()]
    return pairs + [(purpose, it) for purpose, it in (("sample_input", sample_input), ("sample_output", sample_output)) if it is not None]


def name_and_version(dataset: Any) -> tuple[str, int]:
    """Of a registered dataset. Raises UserErrorException for any other thing."""
    name, version = getattr(dataset, "name", None), getattr(dataset, "version", None)
    if not isinstance(name, str) or not isinstance(version, int) or not name or not 0 < version < 2**63:
        what = f"{dataset!r} is no registered dataset; a model's lineage names registered versions."
        raise UserErrorException(what, target="datasets", hint="call dataset.register(...) and give what it returns")
    return name, version


def _pair(item: Any) -> tuple[str, Any]:
    if not isinstance(item, tuple | list):
        return "", item
    if len(item) != 2 or not isinstance(item[0], str):
        raise UserErrorException(f"A dataset is given with its purpose as (purpose, dataset), not as {item!r}.", target="datasets")
    return item[0], item[1]
