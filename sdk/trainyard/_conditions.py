"""Conditions on files, written as in Azure ML: ds.file_metadata['Size'] > 1000."""

from __future__ import annotations

from dataclasses import dataclass

from trainyard._errors import UserErrorException


@dataclass(frozen=True)
class Condition:
    """Bounds of a file's size in bytes, both included; None: no bound. `a & b` holds where both do."""

    at_least: int | None = None
    at_most: int | None = None

    def __and__(self, other: object) -> Condition:
        if not isinstance(other, Condition):
            raise _unclear("&")
        low = [bound for bound in (self.at_least, other.at_least) if bound is not None]
        high = [bound for bound in (self.at_most, other.at_most) if bound is not None]
        return Condition(max(low) if low else None, min(high) if high else None)

    def __or__(self, other: object) -> Condition:
        raise _unclear("|")

    def __invert__(self) -> Condition:
        raise _unclear("~")

    def __bool__(self) -> bool:
        raise _unclear("and, or, not")


class FileMetadata:
    """`file_metadata['Size']`."""

    def __getitem__(self, name: str) -> _Size:
        if name != "Size":
            raise UserErrorException(
                f"Files have no {name!r} to filter by.", target=str(name), hint="use file_metadata['Size'], or a glob over paths"
            )
        return _Size()


class _Size:
    """Compares with numbers of bytes."""

    __hash__ = None  # type: ignore[assignment]

    def __gt__(self, size: float) -> Condition:
        return Condition(at_least=int(size // 1) + 1)

    def __ge__(self, size: float) -> Condition:
        return Condition(at_least=-int(-size // 1))

    def __lt__(self, size: float) -> Condition:
        return Condition(at_most=-int(-size // 1) - 1)

    def __le__(self, size: float) -> Condition:
        return Condition(at_most=int(size // 1))

    def __eq__(self, size: object) -> Condition:  # type: ignore[override]
        if not isinstance(size, int):
            raise UserErrorException(f"A size is a whole number of bytes, not {size!r}.", target="Size")
        return Condition(size, size)


def _unclear(word: str) -> UserErrorException:
    return UserErrorException(
        f"Conditions on files cannot be joined by {word}.", target="filter", hint="join them by &, each in parentheses, or filter twice"
    )
