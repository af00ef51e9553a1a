"""Draws the tables of compression.md: `python docs/chart.py > docs/compression.svg`."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

PAGE = Path(__file__).with_name("compression.md")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 380, 56, 48, 20, 40
COLOURS = {"zstd": "#1f77b4", "gzip": "#d62728"}
LABELLED = (1, 2, 3, 5, 6, 9, 15, 19)
SLOWEST, FASTEST, SMALLEST, LARGEST = 1.6, 900, 35, 50

LABEL_HEIGHT, LABEL_CHARACTER = 9, 5.8  # pixels of a label, of font size 10

Point = tuple[int, float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def table(page: str, codec: str) -> list[Point]:
    """(level, MB/s, size in %) of each row of CODEC's table."""
    text = page.split(f"| {codec} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| *\**(\d+)\** *\| *(\d+) *\| *([\d.]+) %", text, re.MULTILINE)
    return [(int(level), float(speed), float(size)) for level, speed, size in rows]


def x(speed: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(speed / SLOWEST) / math.log(FASTEST / SLOWEST)


def y(size: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (size - SMALLEST) / (LARGEST - SMALLEST)


def text(at_x: float, at_y: float, what: str, more: str = "") -> str:
    return f'<text x="{at_x:.0f}" y="{at_y:.0f}" {more}>{what}</text>'


def _crosses(box: Box, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether the line from START to END comes near BOX, looked at in steps of a pixel or so."""
    steps = int(math.dist(start, end)) + 1
    for step in range(steps + 1):
        at_x, at_y = (a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
        if box[0] - 2 <= at_x <= box[2] + 2 and box[1] - 2 <= at_y <= box[3] + 2:
            return True
    return False


def _distance(box: Box, dot: tuple[float, float]) -> float:
    """How far DOT is from the rim of BOX, in pixels; 0 inside."""
    return math.dist(dot, (min(max(dot[0], box[0]), box[2]), min(max(dot[1], box[1]), box[3])))


def _label_places(at_x: float, at_y: float, width: float) -> list[Box]:
    """Where a label of the point may stand, the best place first."""
    corners = [
        (left, top)
        for away in (5, 9, 14, 20)
        for left, top in (
            (at_x + away, at_y + away - 2),
            (at_x - away - width, at_y - away - LABEL_HEIGHT + 2),
            (at_x + away, at_y - LABEL_HEIGHT / 2),
            (at_x - away - width, at_y - LABEL_HEIGHT / 2),
            (at_x + away, at_y - away - LABEL_HEIGHT + 2),
            (at_x - width / 2, at_y + away),
            (at_x - width / 2, at_y - away - LABEL_HEIGHT),
        )
    ]
    return [(left, top, left + width, top + LABEL_HEIGHT) for left, top in corners]


def labels(curves: dict[str, list[Point]]) -> list[tuple[str, str, Box]]:
    """(codec, label, place) of the levels that are named: no label touches another one, a curve or
    the edge.
    """
    lines = [[(x(speed), y(size)) for _, speed, size in points] for points in curves.values()]
    taken: list[tuple[str, str, Box]] = []
    for codec, points in curves.items():
        for level, speed, size in points:
            if level not in LABELLED:
                continue
            name = f"{codec} {level}"
            for box in _label_places(x(speed), y(size), LABEL_CHARACTER * len(name)):
                inside = (
                    box[0] >= 4
                    and box[2] <= WIDTH - 4
                    and box[1] >= 4
                    and box[3] <= HEIGHT - BOTTOM
                )
                apart = all(
                    box[2] + 2 <= other[0]
                    or other[2] + 2 <= box[0]
                    or box[3] + 2 <= other[1]
                    or other[3] + 2 <= box[1]
                    for _, _, other in taken
                )
                others = min(
                    _distance(box, dot)
                    for line in lines
                    for dot in line
                    if dot != (x(speed), y(size))
                )
                own = _distance(box, (x(speed), y(size))) + 2 <= others
                if (
                    inside
                    and apart
                    and own
                    and not any(
                        _crosses(box, *ends) for line in lines for ends in itertools.pairwise(line)
                    )
                ):
                    taken.append((codec, name, box))
                    break
            else:
                raise ValueError(f"no place for the label `{name}`")
    return taken


def svg(page: str) -> str:
    """The chart of PAGE's tables: size over speed, a line for each codec, a dot for each level."""
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12" fill="#333">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tick in (5, 10, 20, 50, 100, 200, 500):
        parts.append(f'<path d="M{x(tick):.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(text(x(tick), HEIGHT - BOTTOM + 16, str(tick), 'text-anchor="middle"'))
    for share in range(SMALLEST, LARGEST + 1, 5):
        parts.append(f'<path d="M{LEFT} {y(share):.0f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y(share) + 4, f"{share} %", 'text-anchor="end"'))
    parts.append(
        text(
            (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 10,
            "MB per second of processor time",
            'text-anchor="middle"',
        )
    )
    curves = {codec: table(page, codec) for codec in COLOURS}
    for codec, points in curves.items():
        colour = COLOURS[codec]
        line = " ".join(f"{x(speed):.1f},{y(size):.1f}" for _, speed, size in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        )
        parts += [
            f'<circle cx="{x(speed):.1f}" cy="{y(size):.1f}" r="3" fill="{colour}"/>'
            for _, speed, size in points
        ]
    parts += [
        text(box[0], box[3], name, f'fill="{COLOURS[codec]}" font-size="10"')
        for codec, name, box in labels(curves)
    ]
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    print(svg(PAGE.read_text(encoding="utf-8")))
