"""Draws the tables of compression.md: `python docs/chart.py > docs/compression.svg`."""

from __future__ import annotations

import math
import re
from pathlib import Path

PAGE = Path(__file__).with_name("compression.md")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 380, 56, 48, 20, 40
COLOURS = {"zstd": "#1f77b4", "gzip": "#d62728"}
SLOWEST, FASTEST, SMALLEST, LARGEST = 3, 700, 35, 50

Point = tuple[int, float, float]


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


def svg(page: str) -> str:
    """The chart of PAGE's tables: size over speed, a line for each codec, a dot for each level."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tick in (5, 10, 20, 50, 100, 200, 500):
        parts.append(f'<path d="M{x(tick):.0f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(text(x(tick), HEIGHT - BOTTOM + 16, str(tick), 'text-anchor="middle"'))
    for share in range(SMALLEST, LARGEST + 1, 5):
        parts.append(f'<path d="M{LEFT} {y(share):.0f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, y(share) + 4, f"{share} %", 'text-anchor="end"'))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "MB per second of processor time", 'text-anchor="middle"'))
    for codec, colour in COLOURS.items():
        points = table(page, codec)
        line = " ".join(f"{x(speed):.1f},{y(size):.1f}" for _, speed, size in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for level, speed, size in points:
            parts.append(f'<circle cx="{x(speed):.1f}" cy="{y(size):.1f}" r="3" fill="{colour}"/>')
            if level in (1, 2, 3, 5, 6, 9, 15, 19):
                parts.append(text(x(speed) + 5, y(size) - 6, f"{codec} {level}", f'fill="{colour}" font-size="10"'))
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    print(svg(PAGE.read_text(encoding="utf-8")))
