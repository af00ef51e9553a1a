"""The figures of compare.py as a table and as a chart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| job | who | median s | times build-oci's | peak MiB | layer MB | same tree |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        who = row["rival"].replace("|", "\\|")
        size = f"{row['size'] / 1e6:.1f}" if row["size"] else "-"
        same = {True: "yes", False: "no", None: "-"}[row["same_tree"]]
        lines.append(
            f"| {row['case']} | {who} | {row['seconds']:.2f} | {row['ratio']:.2f} |"
            f" {row['peak_mib']:.0f} | {size} | {same} |"
        )
    return "\n".join(lines)


def chart(rows: list[dict[str, Any]], path: Path) -> None:
    """A bar for each rival, a group for each job."""
    try:
        import matplotlib
    except ImportError:
        print("skipped: the chart needs matplotlib", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(rows) + 1))
    labels = [f"{row['case']}: {row['rival']}" for row in rows]
    colours = ["tab:orange" if row["rival"] == "build-oci" else "tab:gray" for row in rows]
    axes.barh(labels, [row["seconds"] for row in rows], color=colours)
    axes.invert_yaxis()
    axes.set_xlabel("seconds, median (less is better)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
