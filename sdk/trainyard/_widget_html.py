"""A snapshot as HTML without scripts, and as text. Everything that comes from a run is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from trainyard._text import plain, shown_line
from trainyard._widget_data import Snapshot

_CHARTS, _ENTRIES, _LINE, _TEXT = 24, 60, 2_000, 600
_WIDTH, _HEIGHT, _DRAWN = 220, 70, 240
_COLOURS = {"Completed": "#1a7f37", "Failed": "#cf222e", "Canceled": "#9a6700", "Running": "#0969da"}
_STYLE = """
.trainyard{font:13px/1.4 system-ui,sans-serif;color:#1f2328;background:#fff;border:1px solid #d0d7de;border-radius:6px;padding:10px}
.trainyard h4{margin:10px 0 4px;font-size:13px}.trainyard table{border-collapse:collapse;font:inherit;color:inherit}.trainyard td,.trainyard th{padding:1px 12px 1px 0;
text-align:left;vertical-align:top;font-weight:normal;word-break:break-word}.trainyard th{color:#59636e;white-space:nowrap}
.trainyard pre{background:#f6f8fa;padding:6px;max-height:260px;overflow:auto;margin:4px 0;white-space:pre-wrap;word-break:break-word}
.trainyard .state{color:#fff;border-radius:9px;padding:1px 9px}.trainyard .charts{display:flex;flex-wrap:wrap;gap:10px}
.trainyard figure{margin:0;max-width:224px}.trainyard figcaption{color:#59636e;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.trainyard .bad{color:#cf222e}.trainyard .dim{color:#59636e}
""".replace("\n", "")


def as_html(run: Snapshot, *, choosing: bool = False) -> str:
    """A self-contained block; `choosing`: the log may be chosen, which needs the widget's script."""
    state = run.status or "unknown"
    parts = [
        f"<style>{_STYLE}</style><div class='trainyard' data-run='{_text(run.run_id)}' data-status='{_text(state)}'>",
        f"<b>{_text(run.run_id)}</b> <span class='state' style='background:{_COLOURS.get(state, '#59636e')}'>{_text(state)}</span>",
        f" <span class='dim'>{_text(run.experiment)}</span>",
        _table(run.facts),
    ]
    if run.error:
        parts.append(f"<h4 class='bad'>{_text(run.error)}</h4>{_pre(run.error_lines)}")
    parts += [_phases(run.phases), _charts(run), _children(run.children)]
    parts += [_section("Tags", _table(run.tags)), _section("Properties", _table(run.properties)), _log(run, choosing)]
    if run.trouble:
        parts.append(f"<p class='dim'>Not everything could be read: {_text('; '.join(run.trouble))}</p>")
    return "".join([*parts, "</div>"])


def as_text(run: Snapshot) -> str:
    """The same in lines."""
    lines = [f"Run {plain(run.run_id)}: {plain(run.status or 'unknown')}"]
    lines += [f"  {plain(name)}: {plain(value)[:_TEXT]}" for name, value in run.facts.items()]
    lines += [f"  {plain(name)} = {points[-1][1]:g}" for name, points in list(run.metrics.items())[:_ENTRIES] if points]
    lines += [f"  {plain(name)} = {plain(value)[:_TEXT]}" for name, value in list(run.texts.items())[:_ENTRIES]]
    lines += [f"  child {plain(name)}: {plain(status)}" for name, status in run.children[:_ENTRIES]]
    lines += [f"  {plain(run.error)[:_TEXT]}"] if run.error else []
    lines += [f"  | {shown_line(line)[:_LINE]}" for line in run.error_lines[:20]]
    lines += [f"  {plain(run.log)}:", *(f"  | {shown_line(line)[:_LINE]}" for line in run.lines[-20:])] if run.lines else []
    lines += [f"  (not everything could be read: {plain('; '.join(run.trouble))})"] if run.trouble else []
    return "\n".join(lines)


def chart(points: Sequence[tuple[float, float]]) -> str:
    """An SVG line of (step, value); finite numbers alone. At most _DRAWN points are drawn: of each stretch its lowest and highest."""
    drawn = _thinned(points)
    left, right = min(x for x, _ in drawn), max(x for x, _ in drawn)
    low, high = min(y for _, y in drawn), max(y for _, y in drawn)

    # Of halves, since the largest numbers' distance is none; half the distance of the smallest is 0.
    wide, tall = right / 2 - left / 2, high / 2 - low / 2

    def place(x: float, y: float) -> str:
        across = (x / 2 - left / 2) / wide if wide > 0 else 0.5
        up = (y / 2 - low / 2) / tall if tall > 0 else 0.5
        return f"{4 + across * (_WIDTH - 8):.1f},{_HEIGHT - 4 - up * (_HEIGHT - 8):.1f}"

    line = " ".join(place(x, y) for x, y in drawn)
    first, _, rest = line.partition(" ")
    shape = f"<polyline fill='none' stroke='#0969da' stroke-width='1.5' points='{line}'/>" if rest else ""
    centre = line.rpartition(" ")[2].split(",") if rest else first.split(",")
    dot = f"<circle cx='{centre[0]}' cy='{centre[1]}' r='2.5' fill='#0969da'/>"
    label = f"from {drawn[0][1]:.6g} to {drawn[-1][1]:.6g}, lowest {low:.6g}, highest {high:.6g}"
    return (
        f"<svg role='img' aria-label='{label}' width='{_WIDTH}' height='{_HEIGHT}' viewBox='0 0 {_WIDTH} {_HEIGHT}'>"
        f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='#f6f8fa'/>{shape}{dot}</svg>"
    )


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _DRAWN:
        return list(points)
    stretch = -(-len(points) // (_DRAWN // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda it: it[1]), max(part, key=lambda it: it[1])}, key=part.index)
    return [*kept[:-1], points[-1]]


def _charts(run: Snapshot) -> str:
    series = [(name, points) for name, points in run.metrics.items() if points]
    figures = [
        f"<figure data-metric='{_text(name)}'>{chart(points)}<figcaption title='{_text(name)}'>{_text(name)} <b>{points[-1][1]:.6g}</b></figcaption></figure>"
        for name, points in series[:_CHARTS]
    ]
    rest = {name: f"{points[-1][1]:.6g}" for name, points in series[_CHARTS:]} | run.texts
    return _section("Metrics", (f"<div class='charts'>{''.join(figures)}</div>" if figures else "") + _table(rest))


def _phases(phases: Sequence[tuple[str, str, str]]) -> str:
    rows = "".join(
        f"<tr><th>{_text(at)}</th><td>{_text(status)}</td><td class='dim'>{_text(why)}</td></tr>" for at, status, why in phases[-_ENTRIES:]
    )
    return _section("Phases", f"<table>{rows}</table>" if rows else "")


def _children(children: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(status)}</td></tr>" for name, status in children)
    return _section("Children", f"<table>{rows}</table>" if rows else "")


def _log(run: Snapshot, choosing: bool) -> str:
    if not run.log:
        return _section("Log", "<p class='dim'>Nothing was written yet.</p>")
    name = f"<span class='dim'>{_text(run.log)}</span>"
    if choosing and len(run.logs) > 1:
        options = "".join(f"<option value='{_text(it)}'{' selected' if it == run.log else ''}>{_text(it)}</option>" for it in run.logs)
        name = f"<select data-role='log'>{options}</select>"
    return _section("Log", name + _pre(run.lines))


def _pre(lines: Sequence[str]) -> str:
    text = "\n".join(escape(shown_line(line)[:_LINE]) for line in lines)
    return f"<pre>{text}</pre>" if text else ""


def _table(entries: Mapping[str, str]) -> str:
    shown = list(entries.items())
    rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in shown[:_ENTRIES])
    more = f"<tr><td class='dim' colspan='2'>and {len(shown) - _ENTRIES} more</td></tr>" if len(shown) > _ENTRIES else ""
    return f"<table>{rows}{more}</table>" if rows else ""


def _section(title: str, content: str) -> str:
    return f"<h4>{title}</h4>{content}" if content else ""


def _text(value: object) -> str:
    """Safe inside an element and inside a quoted attribute."""
    return escape(plain(value)[:_TEXT], quote=True)
