"""Plots of rows as SVG: lines over logarithmic or plain axes, and nothing else.

Colours are of one set that tells apart also without seeing colours well; text takes the colour of
the page where it is shown inline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "svg"]

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 150, 40, 52
_COLOURS = (
    "#d55e00", "#000000", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00", "#7f7f7f",
    "#8c564b", "#bcbd22",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: of what it shows.
        points: pairs of numbers, from left to right.
        colour: which of the colours.
    """

    name: str
    points: list[tuple[float, float]]
    colour: int = 0


class _Axis:
    """Places of numbers between two ends."""

    def __init__(self, values: list[float], start: float, end: float, log: bool) -> None:
        self.log, self.start, self.end = log, start, end
        low, high = min(values), max(values)
        self.low: float
        self.high: float
        if log:
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        else:
            self.low, self.high = min(0.0, low), high * 1.05 or 1.0
        if self.low == self.high:
            self.high += 1

    def place(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        share = (at - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            every = max(1, round((self.high - self.low) / 8))
            return [10.0**power for power in range(int(self.low), int(self.high) + 1, every)]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        while (self.high - self.low) / step > 8:
            step *= 2.5 if f"{step:e}"[0] == "2" else 2
        first = math.ceil(self.low / step)
        return [step * at for at in range(first, math.floor(self.high / step) + 1)]


def svg(
    title: str,
    lines: list[Line],
    x_name: str,
    y_name: str,
    unit: str,
    *,
    x_log: bool = True,
    y_log: bool = True,
) -> str:
    """Return a plot.

    Args:
        title: what it shows.
        lines: at least one with at least one point; on logarithmic axes, all above zero.
        x_name: what is along the lower edge.
        y_name: what is along the left edge.
        unit: of the numbers there: `s`, `bytes` or any word.
        x_log: whether the lower axis is logarithmic.
        y_log: whether the left one is.
    """
    x = _Axis([p[0] for each in lines for p in each.points], _LEFT, _WIDTH - _RIGHT, x_log)
    y = _Axis([p[1] for each in lines for p in each.points], _HEIGHT - _BOTTOM, _TOP, y_log)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(_LEFT, 22, title, size=15),
        _text((x.start + x.end) / 2, _HEIGHT - 12, x_name, anchor="middle"),
        f'<g transform="rotate(-90)">{_text(-(y.start + y.end) / 2, 14, y_name, "middle")}</g>',
    ]
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(_rule(at, y.start, at, y.end))
        parts.append(_text(at, y.start + 18, _number(tick, ""), "middle"))
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(_rule(x.start, at, x.end, at))
        parts.append(_text(x.start - 6, at + 4, _number(tick, unit), "end"))
    for row, each in enumerate(lines):
        colour = _COLOURS[each.colour % len(_COLOURS)]
        places = [(x.place(a), y.place(b)) for a, b in each.points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        at = _TOP + 16 * row
        parts.append(
            f'<rect x="{x.end + 14}" y="{at}" width="10" height="10" fill="{colour}"/>'
            + _text(x.end + 30, at + 9, each.name)
        )
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _number(value: float, unit: str) -> str:
    if unit == "s":
        for below, scale, name in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1, 1e3, "ms")):
            if value < below * 0.9999:
                return f"{value * scale:.4g} {name}"
        return f"{value:.4g} s"
    if unit == "bytes":
        for least, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
            if value >= least * 0.9999:
                return f"{value / least:.4g} {name}"
        return f"{value:.4g} B"
    if value >= 10**4 and math.log10(value) % 1 < 1e-9:
        return "10" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(round(math.log10(value))))
    return f"{value:,.10g}"
