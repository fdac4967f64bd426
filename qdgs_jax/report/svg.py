"""Drawing in SVG: numbers in, markup out. Colours come from the page's CSS classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

MINUS = "\N{MINUS SIGN}"
LETTER = 6.8  # width of an average letter of an axis name, as phones show it
WIDE = 7.4  # of a letter in short names, which may all be wide
LARGEST = 1.55  # that a picture grows to on a wide page, of its own size
FIGURE = 8.3  # width of a digit beside a tick, as phones show it
NAME = 22  # height of a line of an axis name, with what lies around it


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Choose round numbers inside [low, high], about as many as wanted."""
    rough = (high - low) / max(wanted, 1)
    if not rough > 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """Write a number shortly, with a thousands separator and a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", MINUS)


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle; y grows downwards."""

    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True)
class Axis:
    """A range of data and what it is called; `ends` says in words what low and high mean."""

    low: float
    high: float
    label: str
    ends: tuple[str, str] | None = None
    percent: bool = False

    def tick_label(self, value: float) -> str:
        """Text beside a tick."""
        return number(100 * value) + "\N{NARROW NO-BREAK SPACE}%" if self.percent else number(value)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A frame with two axes; lengths are SVG units, near the pixels of a phone.

    The room to the left grows where the upright axis has long figures.
    """

    x: Axis
    y: Axis
    width: int = 420
    height: int = 300
    left: int = 72
    bottom: int = 44
    top: int = 12
    right: int = 24

    def __post_init__(self) -> None:
        figures = (self.y.tick_label(value) for value in ticks(self.y.low, self.y.high, 4))
        room = NAME + FIGURE * max(map(len, figures), default=0)
        object.__setattr__(self, "left", max(self.left, round(room)))

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height of the area that data are drawn in."""
        return self.width - self.left - self.right, self.height - self.top - self.bottom

    def px(self, values: float | np.ndarray) -> np.ndarray:
        """Place data values horizontally, clipped to the frame."""
        share = (np.asarray(values, float) - self.x.low) / (self.x.high - self.x.low)
        return self.left + np.clip(share, 0, 1) * self.inner[0]

    def py(self, values: float | np.ndarray) -> np.ndarray:
        """Place data values vertically, clipped to the frame."""
        share = (np.asarray(values, float) - self.y.low) / (self.y.high - self.y.low)
        return self.top + (1 - np.clip(share, 0, 1)) * self.inner[1]

    def axes(self, *, grid: bool = True) -> str:
        """Draw ticks, their labels, and the names of both axes."""
        width, height = self.inner
        base, parts = self.top + height, []
        for value in ticks(self.x.low, self.x.high, 4):
            at = float(self.px(value))
            if grid:
                parts.append(f'<path class="grid" d="M{at:.1f} {self.top}v{height}"/>')
            parts.append(label(at, base + 14, self.x.tick_label(value), "middle"))
        for value in ticks(self.y.low, self.y.high, 4):
            at = float(self.py(value))
            if grid:
                parts.append(f'<path class="grid" d="M{self.left} {at:.1f}h{width}"/>')
            parts.append(label(self.left - 5, at + 3.5, self.y.tick_label(value), "end"))
        frame = f'<path class="axis" d="M{self.left} {self.top}v{height}h{width}"/>'
        return "".join(parts) + frame + self._names()

    def _names(self) -> str:
        width, height = self.inner
        across = _axis_name(self.x, self.left, width, self.height - 6)
        upwards = _axis_name(self.y, -self.top - height, height, 14)
        return f'{across}<g transform="rotate(-90)">{upwards}</g>'

    def svg(self, body: str, title: str, description: str = "", *, role: str = "img") -> str:
        """Close the picture; the title is what a screen reader says."""
        return picture(self.width, self.height, body, title, description, role=role)


def picture(
    width: int, height: int, body: str, title: str, description: str = "", *, role: str = "img"
) -> str:
    """Make an SVG image that scales with its column; one with links inside is a "group".

    A narrow one stays narrow on a wide page, where its letters would be larger than others.
    """
    more = f"<desc>{escape(description)}</desc>" if description else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{LARGEST * width:.0f}px" '
        f'role="{role}" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{more}{body}</svg>"
    )


def _axis_name(axis: Axis, start: float, room: float, y: float) -> str:
    """Name an axis, by what its two ends mean if it says so."""
    if axis.ends is None:
        return label(start + room / 2, y, axis.label, "middle", "name")
    letters = max(int(room / LETTER) - 6, 8)
    low, high = axis.ends
    half = letters // 2  # what one text leaves of its half is the other's
    low, high = (
        shorten(low, letters - min(len(high), half)),
        shorten(high, letters - min(len(low), half)),
    )
    low, high = f"\N{LEFTWARDS ARROW} {low}", f"{high} \N{RIGHTWARDS ARROW}"
    return label(start, y, low, "start", "name") + label(start + room, y, high, "end", "name")


def shorten(text: str, letters: int) -> str:
    """Cut a text to a number of letters, with dots where something is missing."""
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"


def label(x: float, y: float, text: str, anchor: str = "start", style: str = "tick") -> str:
    """Draw a piece of text; `anchor` is its start, middle or end."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def polyline(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, style: str) -> str:
    """Draw a line through points."""
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="{style}" points="{points}"/>'


def dots(x: Iterable[float], y: Iterable[float], style: str) -> str:
    """Draw dots, all in one path: a segment of length zero with round caps is a dot."""
    path = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True))
    return f'<path class="{style}" d="{path}"/>'


def rectangle(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    """Draw a box, with a text that appears under the pointer."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}">{tip}</rect>'
    )


def embedded_image(x: float, y: float, width: float, height: float, uri: str, style: str) -> str:
    """Place a bitmap; the styles sharp and smooth say how its pixels grow."""
    return (
        f'<image class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" preserveAspectRatio="none" href="{uri}"/>'
    )
