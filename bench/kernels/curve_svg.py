"""Curves of speed-up over sparsity as SVG text, written by hand; used by sparse_curve.py.

A panel is {"title": str, "series": [{"name": str, "points": [(percent, speed-up)], "break_even": percent or None}]}.
"""
import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 460  # of a panel, legend included
LEFT, TOP, PLOT_WIDTH, PLOT_HEIGHT = 60, 50, 560, 350
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#555555")
IDEAL = "#999999"


class Axes:
    """From percent and speed-up (powers of two, as ratios are compared) to places in the panel."""

    def __init__(self, panel, top):
        points = [p for s in panel["series"] for p in s["points"]]
        self.top = top + TOP
        self.max_percent = max(s for s, _ in points)
        self.low = math.floor(math.log2(min(0.5, min(y for _, y in points))))
        ideal = 1 / (1 - self.max_percent / 100)
        self.high = math.ceil(math.log2(max(2.0, ideal, max(y for _, y in points))))

    def x(self, percent):
        return LEFT + PLOT_WIDTH * percent / 100

    def y(self, speedup):
        return self.top + PLOT_HEIGHT * (self.high - math.log2(speedup)) / (self.high - self.low)


def text(x, y, words, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def line(x1, y1, x2, y2, color, width=1.0):
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{color}" stroke-width="{width}"/>')


def curve(axes, points, color, extra=""):
    places = " ".join(f"{axes.x(s):.1f},{axes.y(v):.1f}" for s, v in points)
    return f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"{extra}/>'


def grid(axes, title):
    right, bottom = LEFT + PLOT_WIDTH, axes.top + PLOT_HEIGHT
    out = [text(LEFT, axes.top - 18, title, extra=' font-size="15" font-weight="bold"')]
    for percent in range(0, 101, 10):
        x = axes.x(percent)
        out += [line(x, axes.top, x, bottom, "#dddddd"), text(x, bottom + 18, f"{percent}", "middle")]
    for power in range(axes.low, axes.high + 1):
        y = axes.y(2.0 ** power)
        out += [line(LEFT, y, right, y, "#dddddd"), text(LEFT - 8, y + 4, f"{2.0 ** power:g}x", "end")]
    out += [line(LEFT, axes.top, LEFT, bottom, "#000000"), line(LEFT, bottom, right, bottom, "#000000"),
            line(LEFT, axes.y(1), right, axes.y(1), "#000000"),
            text(LEFT + PLOT_WIDTH / 2, bottom + 38, "zero blocks, %", "middle"),
            text(LEFT, axes.top - 4, "times as fast as dense", extra=' font-size="11"')]
    return out


def break_even_mark(axes, series, color):
    label = escape(f"{series['name']}: break-even {series['break_even']:.0f} %")
    return (f'<circle class="break-even" cx="{axes.x(series["break_even"]):.1f}" cy="{axes.y(1):.1f}" r="5" '
            f'fill="#ffffff" stroke="{color}" stroke-width="2"><title>{label}</title></circle>')


def legend_line(axes, row, name, color, extra=""):
    x, y = LEFT + PLOT_WIDTH + 20, axes.top + 10 + 20 * row
    return [f'<line x1="{x}" y1="{y - 4}" x2="{x + 24}" y2="{y - 4}" stroke="{color}" stroke-width="2"{extra}/>',
            text(x + 30, y, name, extra=' font-size="11"')]


def draw_panel(panel, top):
    axes, dashes = Axes(panel, top), ' stroke-dasharray="6 4"'
    ideal = [(s, 1 / (1 - s / 100)) for s in range(0, int(axes.max_percent) + 1)]
    out = grid(axes, panel["title"])
    out += [curve(axes, ideal, IDEAL, dashes + ' class="ideal"'), *legend_line(axes, 0, "ideal: 1/(1-s)", IDEAL, dashes)]
    for row, series in enumerate(panel["series"], 1):
        color = COLORS[(row - 1) % len(COLORS)]
        extra = dashes if row > len(COLORS) else ""
        out.append(curve(axes, series["points"], color, extra + ' class="kernel"'))
        out += [f'<circle cx="{axes.x(s):.1f}" cy="{axes.y(v):.1f}" r="2.5" fill="{color}"/>' for s, v in series["points"]]
        even = series["break_even"]
        note = "never faster" if even is None else f"even at {even:.0f} %"
        out += legend_line(axes, row, f"{series['name']} ({note})", color, extra)
        if even is not None:
            out.append(break_even_mark(axes, series, color))
    return out


def draw(panels):
    """The text of an SVG file with the panels below each other."""
    out, top = [], 0
    for panel in panels:
        out += draw_panel(panel, top)
        top += max(HEIGHT, TOP + 40 + 20 * len(panel["series"]))
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
            'font-family="sans-serif" font-size="12">')
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *out, "</svg>"]) + "\n"
