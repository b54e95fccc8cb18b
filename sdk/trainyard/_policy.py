"""The policy of the queue as people write it: plain values, as in a YAML file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard.cluster.v1.cluster_pb2 import Policy

SHARES = ("none", "experiment", "user")
"""Whose shares are balanced, by the numbers of trainyard.cluster.v1.FairShare."""
_KEYS = ("fair_share", "weights", "quotas", "aging_seconds", "backfill", "preemption")
_QUOTA = ("cpus", "memory_in_gb", "gpus")
_AGING_SECONDS, _LONGEST_SECONDS, _MOST_NAMES = 60.0, 315_576_000, 1_000


def to_message(wish: Any) -> Policy:
    """The whole policy; what is not named stands at its default. Raises UserErrorException with the key at fault."""
    from trainyard.cluster.v1 import cluster_pb2

    wish = _mapping("the policy", {} if wish is None else wish, _KEYS)
    share = wish.get("fair_share") or "none"
    if share not in SHARES:
        raise _wrong("fair_share", f"is one of {', '.join(SHARES)}, not {share!r}")
    policy = cluster_pb2.Policy(
        fair_share=SHARES.index(share),  # type: ignore[arg-type]  # numbers are as good as names
        no_backfill=not _flag("backfill", wish.get("backfill", True)),
        no_preemption=not _flag("preemption", wish.get("preemption", True)),
    )
    for name, weight in _named("weights", wish.get("weights")).items():
        policy.weights[name] = _number(f"weights.{name}", weight, above_zero=True)
    for name, quota in _named("quotas", wish.get("quotas")).items():
        of = _mapping(f"quotas.{name}", quota, _QUOTA)
        found = {key: _number(f"quotas.{name}.{key}", of.get(key, 0)) for key in _QUOTA}
        if found["gpus"] != int(found["gpus"]) or found["gpus"] >= 1 << 32 or found["memory_in_gb"] >= 1 << 33:
            raise _wrong(f"quotas.{name}", "holds more than any pool has, or a part of a GPU")
        held = policy.quotas[name]
        held.cpus, held.memory_bytes, held.gpus = found["cpus"], int(found["memory_in_gb"] * 2**30), int(found["gpus"])
    seconds = wish.get("aging_seconds")
    if seconds is not None:
        if not 0 < _number("aging_seconds", seconds) <= _LONGEST_SECONDS:
            raise _wrong("aging_seconds", f"is more than 0 and at most {_LONGEST_SECONDS}, not {seconds!r}")
        policy.aging.FromMilliseconds(int(seconds * 1000))
    return policy


def from_message(policy: Policy) -> dict[str, Any]:
    """As `to_message` takes it, with every key."""
    share = policy.fair_share
    return {
        "fair_share": SHARES[share] if share < len(SHARES) else str(share),
        "weights": dict(sorted(policy.weights.items())),
        "quotas": {
            name: {"cpus": held.cpus, "memory_in_gb": held.memory_bytes / 2**30, "gpus": held.gpus}
            for name, held in sorted(policy.quotas.items())
        },
        "aging_seconds": policy.aging.ToMilliseconds() / 1000 if policy.HasField("aging") else _AGING_SECONDS,
        "backfill": not policy.no_backfill,
        "preemption": not policy.no_preemption,
    }


def share_of(policy: Policy, experiment: str, user: str) -> dict[str, Any] | None:
    """Who a run counts for, and with what weight; None where no shares are balanced."""
    by = SHARES[policy.fair_share] if policy.fair_share < len(SHARES) else "none"
    if by == "none":
        return None
    name = user if by == "user" else experiment
    return {"by": by, "name": name, "weight": policy.weights.get(name, 1.0)}


def _mapping(where: str, value: Any, keys: Iterable[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, f"holds names and values, not {value!r:.100}")
    strange = [str(key) for key in value if key not in keys]
    if strange:
        raise _wrong(where, f"has no {strange[0][:100]!r}; it has: {', '.join(keys)}")
    return value


def _named(where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
        raise _wrong(where, "holds the names of experiments or users (in quotes where they look like numbers), with a value each")
    if len(value) > _MOST_NAMES:
        raise _wrong(where, f"names {len(value)}, more than {_MOST_NAMES}")
    return value


def _number(where: str, value: Any, *, above_zero: bool = False) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not fits or (above_zero and not value):
        raise _wrong(where, f"is a number {'above' if above_zero else 'from'} 0, not {value!r:.100}")
    return float(value)


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, f"is true or false, not {value!r:.100}")
    return value


def _wrong(where: str, what: str) -> UserErrorException:
    return UserErrorException(f"{where} {what}.", target=where, hint="see docs/clusters.md")
