"""Draws docs/dashboard.svg, the dashboard in resources.json. Layout as deployed, sample values.

Widgets, places, titles, labels and annotations are the template's. The values are made up: each
line comes from its metric's name, the same in every run. A dashboard that is not JSON, names a
resource that the template lacks or is wider than CloudWatch's 24 columns is an error.
"""

from __future__ import annotations

import json
import math
import random
import re
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
COLUMNS, CELL_WIDTH, CELL_HEIGHT = 24, 37, 42
EDGE, HEADER, POINTS, LEGEND_LINE = 6, 38, 61, 15
COLORS = ("#17b", "#f71", "#292", "#d22", "#96b", "#854", "#d7c", "#777", "#992")
NAMES = {"AWS::StackName": "ChaliceChat", "AWS::Region": "us-east-1", "WebsocketAPI": "a1b2c3d4e5"}
# How large the samples are, by the first pattern found in "name label statistic"; else 20.
LEVELS = {
    r"ClientError|Gone|Message Throttles": 0.45, r"Fail|Error|Throttle|MessagesVisible": 0,
    r"FanOutMilli.*p50": 35, r"FanOutMilli.*p95": 110, r"FanOutMilli": 260,
    r"Latency.*p50": 45, r"Latency.*p95": 700, r"Latency": 4500, r"Disconnect Concurrent": 3,
    r"Connect Concurrent": 4, r"Message Concurrent": 9, r"FanOut Concurrent": 6,
    r"Texts|MessageCount": 90, r"Lines": 900, r"Reverse": 25, r"dRead": 260, r"dWrite": 70,
}  # fmt: skip


def resolve(value: Any, resources: dict[str, Any]) -> Any:
    """What CloudFormation makes of the intrinsic functions in the dashboard."""
    names = {name: f"ChaliceChat-{name}-SAMPLE" for name in resources} | NAMES
    match value:
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([^.}]+)[^}]*\}", lambda match: names[match[1]], text)
        case {"Fn::Split": [separator, text]}:
            return resolve(text, resources).split(separator)
        case {"Fn::Join": [separator, parts]}:
            return separator.join(resolve(part, resources) for part in resolve(parts, resources))
        case str() | list():
            return value
    raise ValueError(f"Not a function that this script knows: {value}")


def samples(name: str) -> list[int]:
    """Made-up values, one a minute: the same load for all, with noise that is each name's own."""
    noise = random.Random(name)
    level = next((level for pattern, level in LEVELS.items() if re.search(pattern, name)), 20)
    load = [0.75 + 0.25 * math.sin(i / 9 - 1) + 0.1 * math.sin(i / 2.3) for i in range(POINTS)]
    return [round(level * each * (0.8 + 0.4 * noise.random())) for each in load]


def text(x: float, y: float, what: str, more: str = "", size: float = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(what)}</text>\n'


def draw(widget: dict[str, Any]) -> str:
    assert widget["x"] + widget["width"] <= COLUMNS, f"Wider than the dashboard: {widget}"
    shown = widget["properties"]
    x, y = EDGE + widget["x"] * CELL_WIDTH + 3, HEADER + widget["y"] * CELL_HEIGHT + 3
    width, height = widget["width"] * CELL_WIDTH - 6, widget["height"] * CELL_HEIGHT - 6
    lines = []
    for metric in shown["metrics"]:
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        label = options.get("label", metric[1])
        lines.append((label, samples(f"{metric[1]} {label} {options.get('stat', shown['stat'])}")))
    horizontal = shown.get("annotations", {}).get("horizontal", [])
    longest = max(len(label) for label, _ in lines) * 6.4 + 24  # Pixels, about
    columns = 2 if len(lines) > 8 else max(1, min(3, int((width - 20) / longest)))
    part, fits = (width - 20) // columns, int(((width - 20) // columns - 18) / 6.4)
    left, right, top = x + 50, x + width - 24, y + 36
    bottom = y + height - 28 - math.ceil(len(lines) / columns) * LEGEND_LINE
    most = 1.1 * max(1, *(max(v) for _, v in lines), *(mark["value"] for mark in horizontal))
    step = next(s for e in range(9) for s in (10**e, 2 * 10**e, 5 * 10**e) if 4 * s >= most)
    highest = math.ceil(most / step) * step
    scale, minute = (bottom - top) / highest, (right - left) / (POINTS - 1)
    svg = f'<path d="M{x} {y}h{width}v{height}h{-width}z" fill="none" stroke="#ccc"/>\n'
    svg += text(x + 10, y + 20, shown["title"], 'font-weight="bold"', 13)
    for tick in range(0, highest + 1, step):
        at = bottom - tick * scale
        svg += f'<path d="M{left} {at:.1f}H{right}" stroke="#eee"/>\n'
        svg += text(left - 6, at + 4, f"{tick:,}", 'text-anchor="end"')
    for n in range(0, POINTS, 15):
        clock = f"{12 + n // 60}:{n % 60:02}"
        svg += text(left + n * minute, bottom + 15, clock, 'text-anchor="middle"')
    for i, (label, values) in enumerate(lines):
        spots = (f"{left + n * minute:.1f},{bottom - v * scale:.1f}" for n, v in enumerate(values))
        color = COLORS[i % len(COLORS)]
        svg += f'<polyline points="{" ".join(spots)}" fill="none" stroke="{color}"/>\n'
        at, base = x + 10 + i % columns * part, bottom + 34 + i // columns * LEGEND_LINE
        svg += f'<rect x="{at}" y="{base - 9}" width="10" height="10" rx="2" fill="{color}"/>\n'
        svg += text(at + 15, base, label if len(label) <= fits else label[: fits - 1] + "…")
    for what, value in ((mark["label"], mark["value"]) for mark in horizontal):
        at = bottom - value * scale
        svg += f'<path d="M{left} {at:.1f}H{right}" stroke="#b00" stroke-dasharray="5 3"/>\n'
        svg += text(right, at - 4, f"{what}: {value:,}", 'text-anchor="end"')
    return svg


def main() -> None:
    resources = json.loads((DOCS.parent / "resources.json").read_text("utf-8"))["Resources"]
    dashboard = resources["Dashboard"]["Properties"]
    widgets = json.loads(resolve(dashboard["DashboardBody"], resources))["widgets"]
    width = 2 * EDGE + COLUMNS * CELL_WIDTH
    height = HEADER + EDGE + CELL_HEIGHT * max(each["y"] + each["height"] for each in widgets)
    name, note = resolve(dashboard["DashboardName"], resources), "Layout as deployed, sample values"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
    svg += f'height="{height}" font-family="sans-serif" stroke-width="1.5" role="img">\n'
    svg += f'<title>{name}. {note}</title><rect width="100%" height="100%" rx="6" fill="white"/>\n'
    svg += text(EDGE + 6, 26, name, 'font-weight="bold"', 17)
    svg += text(width - EDGE - 6, 25, note, 'text-anchor="end" font-style="italic"', 14)
    svg += "".join(draw(widget) for widget in widgets) + "</svg>\n"
    (DOCS / "dashboard.svg").write_text(svg, "utf-8")


if __name__ == "__main__":
    main()
