"""Draws the chart of docs/design.md with matplotlib. The same figures give the same file."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

COLOURS = ["#b3261e", "#b06000", "#0b57d0"]
STYLE: Any = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "broadcast",
}

Series = dict[str, dict[int, float]]  # by name: seconds by members


def draw(measured: Series, limit: Series, note: str, file: Path) -> None:
    """One line a series; those of `limit` are dashed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.6), layout="constrained")
        axes = figure.subplots()
        for colour, (name, points) in zip(COLOURS, measured.items(), strict=True):
            axes.plot(list(points), list(points.values()), "o-", color=colour, label=name)
        for name, points in limit.items():
            axes.plot(list(points), list(points.values()), "--", color="grey", label=name)
        axes.set_title("Seconds until the last member of a room has a message", loc="left")
        axes.set_xlabel("members")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.grid(color="#ddd")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", frameon=False)
        figure.supxlabel(note, fontsize=8, color="#555", x=0.01, ha="left")
        figure.savefig(file, metadata={"Date": None})
