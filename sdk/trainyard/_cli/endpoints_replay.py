"""`trainyard endpoint replay`: what another version answers to calls that were sampled."""

from __future__ import annotations

import itertools
import math
import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Annotated, Any

import typer

from trainyard._cli import completion, exits
from trainyard._cli.common import Config, Json, moment, workspace, wrong
from trainyard._cli.output import emit, note, one, rows
from trainyard._errors import TrainyardException

_PLACE = re.compile(r"(?:trainyard\.inference/\d+@)?(\d{1,18})\Z")
_TELL_SECONDS = 2.0


def replay(
    name: Annotated[str, typer.Argument(help="the endpoint whose calls were sampled", autocompletion=completion.endpoints)],
    against: Annotated[
        str,
        typer.Option("--against", help="NAME:VERSION or NAME@ALIAS: stands behind an endpoint of its own for the time", show_default=False),
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="or an endpoint that is there", show_default=False, autocompletion=completion.endpoints)
    ] = "",
    since: Annotated[
        str,
        typer.Option(help="an ISO time, 90s, 30m, 2h, 7d ago, or an offset of its partition; else all that is kept", show_default=False),
    ] = "",
    until: Annotated[str, typer.Option(help="an ISO time, or 90s, 30m, 2h, 7d ago", show_default=False)] = "",
    deployment: Annotated[int, typer.Option(min=0, help="only calls that this deployment answered; 0: any")] = 0,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="numbers that differ by no more are as good as equal; relative to the larger one where that is above 1"),
    ] = 1e-6,
    limit: Annotated[int, typer.Option("--limit", min=0, help="at most so many calls, the oldest first; 0 = all")] = 1000,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Ask another version what callers have asked, and compare the answers. Exit code 6 where any differs, or is missing now."""
    if bool(against) == bool(endpoint):
        raise wrong("Give either --against or --endpoint.", "--against")
    if math.isnan(tolerance):
        raise wrong("--tolerance is a number from 0.", "--tolerance")
    from trainyard._replay.replaying import replay as run
    from trainyard._replay.samples import samples
    from trainyard._replay.target import Target, standing_in
    from trainyard._webservice import Webservice

    space = workspace(config)
    found = samples(space._events, name, _range(since, until, deployment))
    with closing(found):
        first = next(found, None)
        if first is None:
            raise TrainyardException(
                f"No sampled call of an endpoint {name!r} lies in the log{' in that time' if since or until else ''}.",
                code="SamplesNotFound",
                target=name,
                hint=f"`trainyard endpoint update {name} --sample-rate 0.1` has calls kept from now on, for as long as the topic keeps them",
            )
        if against:
            note(f"deploying {against} for the time of the replay")
        with _terminable(), standing_in(space, name, against) if against else nullcontext(Webservice(space, endpoint)) as service:
            with closing(Target(service)) as target:
                wanted = itertools.islice(itertools.chain([first], found), limit or None)
                report = run(wanted, target, tolerance, _Progress())
    _show(name, against or endpoint, report, as_json=as_json)
    if not report.is_clean:
        raise typer.Exit(exits.Exit.DIFFERENT)


def _range(since: str, until: str, deployment: int) -> Any:
    from trainyard._replay.samples import Range

    place = _PLACE.match(since)
    begin = moment(since, "--since") if since and not place else None
    return Range(begin, moment(until, "--until") if until else None, int(place[1]) if place else None, deployment)


def _show(name: str, against: str, report: Any, *, as_json: bool) -> None:
    told = report.as_dict()
    if as_json:
        emit({"endpoint": name, "against": against, **told})
        return
    examples = told.pop("examples")
    one({"endpoint": name, "against": against, **told}, as_json=False)
    rows(examples, ("sample", "at", "call", "outcome", "where", "before", "after", "difference", "why"), as_json=False)


class _Progress:
    """How far it is, now and then, on standard error."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, report: Any) -> None:
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._told = time.monotonic()
            note(f"{report.samples} calls: {report.differing} differ, {report.failed} failed")


@contextmanager
def _terminable() -> Iterator[None]:
    """TERM ends the block as Ctrl-C does, so that what stands in for a version goes."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
