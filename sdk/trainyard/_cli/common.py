"""What the groups share: options, the workspace, pages, moments, name=value pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import grpc
import typer

from trainyard import _errors, _moments
from trainyard._cli import completion
from trainyard._cli.output import note

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

Item = TypeVar("Item")
Config = Annotated[str | None, typer.Option("--config", help="config.json, or the folder that holds it", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON alone on standard output: one object a line for a list, one object else")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="at most so many")]
Token = Annotated[str, typer.Option("--page-token", help="go on where the page before ended", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="every page")]
Since = Annotated[
    str, typer.Option("--since", help="an ISO time (UTC where it names no zone), or 90s, 30m, 2h, 7d ago", show_default=False)
]
TagFilter = Annotated[list[str] | None, typer.Option("--tag", help="only with this tag: NAME or NAME=VALUE; may be repeated")]
AsOf = Annotated[
    str, typer.Option("--as-of", help="as it was: an ISO time, 90s, 30m, 2h, 7d ago, or TOPIC/PARTITION@OFFSET", show_default=False)
]
RunId = Annotated[str, typer.Argument(help="id of the run", autocompletion=completion.run_ids)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


def new_group(help: str) -> typer.Typer:  # noqa: A002 - typer's own word
    """A group of commands."""
    return typer.Typer(no_args_is_help=True, help=help)


def workspace(config: str | None) -> Workspace:
    """The stack that --config, TRAINYARD_CONFIG or the nearest config.json names."""
    from trainyard._workspace import Workspace

    return Workspace.from_config(config)


def wrong(message: str, target: str, hint: str = "") -> _errors.UserErrorException:
    """An option that cannot be taken."""
    return _errors.UserErrorException(message, target=target, hint=hint)


def moment(text: str, option: str) -> datetime:
    """An ISO time, in UTC where it names no zone, or a span back from now."""
    return _moments.time_of(text, option)


def as_of(text: str) -> Any:
    """--as-of as history takes it; None for now."""
    return _moments.as_of(text or None, "--as-of")


def pairs(given: Sequence[str] | None, option: str, *, bare: bool = False) -> dict[str, str]:
    """NAME=VALUE each; `bare`: NAME alone has an empty value."""
    made: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not name or not (equals or bare):
            raise wrong(f"{option} takes NAME=VALUE, not {text!r}.", option)
        made[name] = value
    return made


def has_tags(own: Any, wanted: dict[str, str]) -> bool:
    """An empty value asks for the name alone."""
    return all(name in own and value in ("", own[name]) for name, value in wanted.items())


def paged(
    fetch: Callable[[int, str], tuple[Sequence[Item], str]],
    *,
    limit: int,
    token: str,
    everything: bool,
    keep: Callable[[Item], bool] | None = None,
    stop: Callable[[Item], bool] | None = None,
) -> Iterator[Item]:
    """Items page by page as the server gives them: fetch(size, token) -> (items, next token). What is left is told on standard error."""
    given, size = 0, min(limit, 1000)
    while True:
        items, following = fetch(1000 if everything else size, token)
        for item in items:
            if stop is not None and stop(item):
                return
            if keep is None or keep(item):
                given += 1
                yield item
        if not following:
            return
        token = following
        size = min(limit - given, 1000)
        if not everything and size <= 0:
            _more(token)
            return


def page_of(items: Iterable[Item], key: Callable[[Item], str], *, limit: int, token: str, everything: bool) -> list[Item]:
    """One page of a list that the server gives whole; the token is the key of the last item of the page before."""
    listed = list(items)
    if token:
        keys = [key(item) for item in listed]
        if token not in keys:
            raise wrong(f"--page-token {token!r} is none of this list, or no more.", "--page-token", "leave it out to begin anew")
        listed = listed[keys.index(token) + 1 :]
    if everything or len(listed) <= limit:
        return listed
    _more(key(listed[limit - 1]))
    return listed[:limit]


def stream(call: Any, otherwise: type[_errors.TrainyardException] = _errors.UserErrorException) -> Iterator[Any]:
    """The answers of a streaming call; its errors typed."""
    try:
        yield from call
    except grpc.RpcError as error:
        raise _errors.from_rpc(error, otherwise) from error


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal; elsewhere --yes is needed."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise wrong(f"{question} Nobody can be asked here.", "--yes", "give --yes")
    typer.confirm(question, abort=True, err=True)


def _more(token: str) -> None:
    note(f"There is more: --page-token {token}, or --all")
