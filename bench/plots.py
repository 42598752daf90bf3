"""Bar charts as SVG, which every browser and repository page shows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LEFT, _WIDTH, _RIGHT = 150, 520, 90
_ROW, _TOP, _BOTTOM = 26, 44, 12
_TEXT = "font-family='sans-serif' font-size='13' fill='#57606a'"


@dataclass(frozen=True)
class Bar:
    """One bar; with a spread it has a line from the least to the most."""

    label: str
    value: float
    colour: str
    least: float | None = None
    most: float | None = None


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars on a logarithmic scale from a power of ten below the smallest."""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
        f"<text x='{_LEFT}' y='24' {_TEXT} font-weight='bold'>{escape(title)}</text>",
    ]
    scale = _scale([each for row in rows for each in (row.value, row.least, row.most) if each])
    for number, row in enumerate(rows):
        parts += _bar(row, _TOP + _ROW * number, scale)
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def x(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(_LEFT + _WIDTH * min(1.0, max(0.0, share)), 1)


def _scale(values: Sequence[float]) -> _Scale:
    if not values:
        return _Scale(0, 1)
    low = math.floor(math.log10(min(values)) - 0.3)
    return _Scale(low, max(low + 1.0, math.log10(max(values))))


def _bar(row: Bar, y: int, scale: _Scale) -> list[str]:
    end, middle = scale.x(row.value), y + _ROW / 2
    name, bar_width = escape(row.label), round(end - _LEFT, 1)
    parts = [
        f"<text x='{_LEFT - 8}' y='{middle + 4}' {_TEXT} text-anchor='end'>{name}</text>",
        _box(_LEFT, y + 4, bar_width, _ROW - 8, row.colour),
    ]
    last = end
    if row.least and row.most:
        last = max(end, scale.x(row.most))
        parts.append(
            f"<line x1='{scale.x(row.least)}' x2='{scale.x(row.most)}' y1='{middle}' "
            f"y2='{middle}' stroke='#24292f' stroke-width='2'/>"
        )
    text = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:,.3g}"  # noqa: PLR2004
    parts.append(f"<text x='{last + 6}' y='{middle + 4}' {_TEXT}>{text}</text>")
    return parts


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f"<rect x='{x}' y='{y}' width='{width}' height='{height}' fill='{colour}'/>"
