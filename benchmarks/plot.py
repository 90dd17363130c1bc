"""A line plot with logarithmic axes as SVG text: too little to need a plotting library for."""

import math
from html import escape

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 62, 36, 54, 76
COLOURS = ["#b3261e", "#b06000", "#0b57d0", "#6b6b6b"]
GREY = "#555"


class Axes:
    """From values to places in the picture: whole powers of ten, so that the grid tells the truth at a glance."""

    def __init__(self, xs: list[float], ys: list[float]) -> None:
        self.x_powers, self.y_powers = powers(xs), powers(ys)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = share(x, self.x_powers) * (WIDTH - LEFT - RIGHT)
        up = share(y, self.y_powers) * (HEIGHT - TOP - BOTTOM)
        return LEFT + across, HEIGHT - BOTTOM - up

    def grid(self) -> list[str]:
        parts = []
        for power in self.x_powers:
            x, _ = self.place(10.0**power, 1)
            parts += [
                line(x, TOP, x, HEIGHT - BOTTOM),
                text(x, HEIGHT - BOTTOM + 19, f"{10**power:,}", anchor="middle"),
            ]
        for power in self.y_powers:
            _, y = self.place(1, 10.0**power)
            parts += [
                line(LEFT, y, WIDTH - RIGHT, y),
                text(LEFT - 8, y + 4, f"{10.0**power:g}", anchor="end"),
            ]
        return parts


def powers(values: list[float]) -> range:
    """Of ten, from the last below to the first above all values."""
    return range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)


def share(value: float, within: range) -> float:
    return (math.log10(value) - within[0]) / (within[-1] - within[0])


def log_log(series: dict[str, dict[int, float]], title: str, x_label: str, note: str) -> str:
    """One line a series, in the order given; the last is drawn dashed, as the limit of the others."""
    xs = [float(x) for points in series.values() for x in points]
    axes = Axes(xs, [y for points in series.values() for y in points.values()])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="white"/>',
        text(LEFT, 30, title, size=17),
        *axes.grid(),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 38, x_label, anchor="middle"),
        text(LEFT, HEIGHT - 12, note, size=11, colour=GREY),
    ]
    for index, (name, points) in enumerate(series.items()):
        colour, dashed = COLOURS[index], index == len(series) - 1
        parts += curve([axes.place(x, y) for x, y in points.items()], colour, dashed)
        parts += key(LEFT + 16, TOP + 18 + 21 * index, name, colour, dashed)
    return "\n".join([*parts, "</svg>", ""])


def key(x: float, y: float, name: str, colour: str, dashed: bool) -> list[str]:
    box = f'<rect x="{x - 6:.1f}" y="{y - 10:.1f}" width="260" height="20" fill="white"/>'
    return [box, *curve([(x, y), (x + 32, y)], colour, dashed), text(x + 44, y + 4, name)]


def curve(points: Points, colour: str, dashed: bool) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="6 5"' if dashed else ""
    drawn = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>'
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
    return [drawn] if dashed else [drawn, *dots]


def text(
    x: float, y: float, content: str, size: int = 13, anchor: str = "start", colour: str = "#111"
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {place}>{escape(content)}</text>"


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'
