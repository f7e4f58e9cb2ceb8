"""How cost grows with resolution, timesteps, photos in a call and frames: plots and a table from the files of ``speed.py``.

python benchmarks/plots.py benchmarks/results/speed-*.json        # writes docs/images/speed-SIZE-DEVICE.svg, prints the tables
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parents[1] / "docs" / "images"
AXES = {
    "side": "side of the input, pixels",
    "timesteps": "timesteps",
    "batch": "photos handed over together",
    "frames": "frames of a video",
}
MEASURES: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "seconds": ("seconds a photo", lambda row: row["seconds"] / row.get("batch", 1)),
    "memory": ("peak memory, GiB", lambda row: row["peak_mib"] / 1024),
}
# Okabe and Ito's colours, which stay apart for all eyes; the plain procedure is black and dashed. An opaque light ground, so that
# a page may be light or dark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LABEL_INCHES = 2.6  # of one name in the legend
GROUND, INK, FAINT, GRID = "#fbfbf9", "#222222", "#555555", "#d8d8d4"
SETTINGS: dict[Any, Any] = {"svg.hashsalt": "genzqa", "font.size": 10.0, "axes.spines.top": False, "axes.spines.right": False,
                            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
                            "ytick.color": INK, "axes.facecolor": GROUND, "figure.facecolor": GROUND}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in options.files:
        record = json.loads(path.read_text())
        found[record["asked"]["size"], record["asked"]["device"]].append(record)
    options.images.mkdir(parents=True, exist_ok=True)
    for (size, device), records in found.items():
        photos = [
            row | {"run": run} for run, record in enumerate(records) for row in record["photos"] if "skipped" not in row
        ]
        videos = [row for record in records for row in record["videos"]]
        draw(photos, videos, options.images / f"speed-{size}-{device}.svg")
        print("\n".join(table(photos)), end="\n\n")


def draw(photos: Sequence[dict[str, Any]], videos: Sequence[dict[str, Any]], path: Path) -> None:
    """Time above memory, a column for everything that at least two values were measured of."""
    columns = {axis: rows for axis in ("side", "timesteps", "batch") if (rows := growth(photos, axis))}
    if len({row["frames"] for row in videos}) > 1:
        columns["frames"] = list(videos)
    if not columns:
        return
    labels = sorted({label(row) for rows in columns.values() for row in rows}, key=lambda name: (name != "plain", name))
    colours = dict(zip((name for name in labels if name != "plain"), COLOURS, strict=False)) | {"plain": INK}
    with matplotlib.rc_context(SETTINGS):
        width = 0.6 + 3.1 * len(columns)
        figure = Figure(figsize=(width, 5.6), layout="constrained")
        grid = figure.subplots(len(MEASURES), len(columns), squeeze=False)
        for column, (axis, rows) in enumerate(columns.items()):
            for row, measure in enumerate(MEASURES):
                panel(grid[row][column], rows, axis, measure, colours)
        handles = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
        figure.legend(
            [handles[name] for name in labels],
            labels,
            loc="outside lower center",
            ncols=max(1, int(width / LABEL_INCHES)),
            frameon=False,
        )
        figure.savefig(path, metadata={"Date": None})


def growth(rows: Sequence[dict[str, Any]], axis: str) -> list[dict[str, Any]]:
    """The rows that differ in ``axis`` alone: where most values of it were measured, of single photos if possible. Of one run,
    for machines are not the same on two days; of several only where no run has two values, and then what was measured more than
    once is taken from the first."""
    others = [name for name in ("batch", "side", "timesteps") if name != axis]
    for together in (["run"], []):
        groups: dict[tuple[int, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[tuple(row[name] for name in (*others, *together))].append(row)
        counts = {key: len({row[axis] for row in group}) for key, group in groups.items()}
        best = max(counts, key=lambda key: (counts[key], [-value for value in key]), default=None)
        if best is not None and counts[best] >= 2:
            first: dict[tuple[str, int], dict[str, Any]] = {}
            for row in groups[best]:
                first.setdefault((label(row), row[axis]), row)
            return list(first.values())
    return []


def panel(axes: Axes, rows: Sequence[dict[str, Any]], axis: str, measure: str, colours: dict[str, str]) -> None:
    """One measure over one axis. Time is logarithmic, as the axis: a straight line is a power, one ratio one distance everywhere."""
    title, value_of = MEASURES[measure]
    ticks = sorted({row[axis] for row in rows})
    for name, colour in colours.items():
        points = sorted((row[axis], value_of(row)) for row in rows if label(row) == name)
        if axis == "batch" and name == "plain":  # one photo at a time, however many there are
            points = [(tick, points[0][1]) for tick in ticks] if points else []
        if points:
            dashes, marker = ("--", "") if name == "plain" else ("-", "o")
            axes.plot(
                *zip(*points, strict=True),
                dashes,
                marker=marker,
                color=colour,
                label=name,
                linewidth=1.8,
                markersize=4.5,
            )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if measure == "seconds":
        axes.set_yscale("log")
        values = round_values(*axes.get_ylim())
        axes.yaxis.set_major_locator(FixedLocator(values) if len(values) > 1 else MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, axes.get_ylim()[1] * 1.08)  # room above the highest marker
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("seconds a video" if measure == "seconds" and axis == "frames" else title)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    if measure == "seconds" and axis != "frames":
        units = {"side": "{0}x{0} pixels", "timesteps": "{0} timesteps", "batch": "{0} at a time"}
        fixed = [unit.format(rows[0][name]) for name, unit in units.items() if name != axis]
        axes.set_title(", ".join(fixed).replace("1 timesteps", "1 timestep"), fontsize=9, color=FAINT)


def round_values(low: float, high: float) -> list[float]:
    """Values 1, 2 and 5 times a power of ten between two bounds."""
    values = (first * 10.0**power for power in range(-4, 6) for first in (1, 2, 5))
    return [value for value in values if low <= value <= high]


def label(row: dict[str, Any]) -> str:
    if row.get("contestant") == "plain":
        return "plain"
    return f"genzqa, {row['backend']} {row['precision']}{' compiled' if row.get('compiled') else ''}"


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Markdown, of what was measured of photos."""
    heads = ("side", "timesteps", "batch", "", "seconds", "photos/s", "peak MiB", "TFLOP a photo", "TFLOP/s", "of ceiling",
             "times plain", "differs")  # fmt: skip
    lines = ["|" + "|".join(f" {head} " if head else " " for head in heads) + "|",
             "|" + "".join("--:|" if head else "---|" for head in heads)]  # fmt: skip
    for row in rows:
        cells = [f"{row['side']}", f"{row['timesteps']}", f"{row['batch']}", label(row), f"{row['seconds']:.3g}",
                 f"{row['photos_per_second']:.3g}", f"{row['peak_mib']:.0f}"]  # fmt: skip
        for name, form in (
            ("tflop_per_photo", ".3g"),
            ("tflops", ".3g"),
            ("of_ceiling", ".0%"),
            ("times_plain", ".1f"),
            ("largest_difference", ".1e"),
        ):
            cells.append(format(row[name], form) if name in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
