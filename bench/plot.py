"""Draw what bench/compare.py measured: how near each test comes to the machine's limit, llama.cpp beside edgeq.

    python bench/plot.py [results.csv ...] [--out bench/results]

One figure per CSV file, number of threads and kernels' body, SVG and PNG: generation against the read bandwidth,
prompts against the peak of the byte dot products. Needs matplotlib: pip install edgeq[bench].
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import script
from machine import RESULTS
from table_file import read

from edgeq.cli.roofline import Case

FORMATS = ("svg", "png")


@dataclass(frozen=True)
class Bar:
    """A line of a panel: what is reached and what could be, in the panel's unit; `peer` is None if not known."""

    label: str
    ours: float
    peer: float | None
    limit: float


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    limit: str
    bars: list[Bar]


def panels(cells: Sequence[dict[str, str]]) -> list[Panel]:
    """Generation and prompts of one machine and one number of threads; those without rows are left out."""
    generation, prompts = [], []
    for row in cells:
        label = f"{row['model']}{'' if row['same_bits'] == 'True' else ' *'}  {row['test']}"
        if Case.parse(row["test"]).kind == "tg":
            ours, peer = float(row["gb_per_second"]), row.get("peer_gb_per_second")
            if not peer and row["same_bits"] == "True":
                peer = ours / float(row["ratio"])
            generation.append(Bar(label, ours, float(peer) if peer else None, float(row["read_bandwidth_gb"])))
        elif row["dot_peak_g"]:
            ours = float(row["g_multiply_adds_per_second"])
            prompts.append(Bar(label, ours, ours / float(row["ratio"]), float(row["dot_peak_g"])))
    found = (
        Panel("Generation", "GB/s of weights, keys and values", "read bandwidth", generation),
        Panel("Prompts", "G multiply-adds/s", "peak of the byte dot products", prompts),
    )
    return [panel for panel in found if panel.bars]


def draw(plt: Any, title: str, shown: Sequence[Panel]) -> Any:
    """A figure with the panels one above the other. Shapes, not colours, tell the points apart."""
    heights = [len(panel.bars) for panel in shown]
    figure, axes = plt.subplots(
        len(shown),
        squeeze=False,
        figsize=(8.0, 0.28 * sum(heights) + 1.1 * len(shown) + 0.6),
        gridspec_kw={"height_ratios": [height + 1 for height in heights]},
        layout="constrained",
    )
    figure.suptitle(title, fontsize=11)
    for axis, panel in zip(axes[:, 0], shown, strict=True):
        draw_panel(axis, panel)
    known = {
        label: handle for axis in axes[:, 0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_panel(axis: Any, panel: Panel) -> None:
    places = range(len(panel.bars))
    limits = [bar.limit for bar in panel.bars]
    axis.barh(places, limits, height=0.72, color="0.92", edgecolor="0.6", linewidth=0.6, label="limit")
    peers = [(bar.peer, place) for place, bar in enumerate(panel.bars) if bar.peer is not None]
    if peers:
        axis.scatter(*zip(*peers, strict=True), marker="D", s=30, color="white", edgecolor="black", label="llama.cpp")
    axis.scatter([bar.ours for bar in panel.bars], places, marker="o", s=34, color="black", label="edgeq", zorder=3)
    for place, bar in enumerate(panel.bars):
        axis.text(1.01, place, f"{100 * bar.ours / bar.limit:.0f} %", transform=_beside(axis), va="center", fontsize=8)
    axis.set_yticks(places, [bar.label for bar in panel.bars], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(panel.unit, fontsize=9)
    axis.set_title(
        f"{panel.title}; the limit is the {panel.limit}, edgeq's share of it is on the right", fontsize=9, loc="left"
    )
    axis.spines[["top", "right"]].set_visible(False)


def _beside(axis: Any) -> Any:
    """x as a share of the axis, y in its data."""
    return axis.get_yaxis_transform()


def figures(path: Path, plt: Any, out: Path) -> list[Path]:
    """Draw one results file; the files written, none for a CSV of something else than compare.py's."""
    cells = read(path)
    if not cells or not {"same_bits", "test", "threads", "machine", "isa"} <= cells[0].keys():
        return []
    written = []
    for threads, isa in sorted({(int(row["threads"]), row["isa"]) for row in cells}):
        rows = [row for row in cells if (row["threads"], row["isa"]) == (str(threads), isa)]
        title = f"{rows[-1]['machine']} ({isa}), {threads} thread{'s' if threads > 1 else ''}"
        body = "" if isa == cells[0]["isa"] else f"-{isa}"
        figure = draw(plt, title, panels(rows))
        for kind in FORMATS:
            target = out / f"{path.stem}-{threads}-threads{body}.{kind}"
            figure.savefig(target, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            written.append(target)
        plt.close(figure)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=script.file, help="[default: all of bench/results]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures  [default: bench/results]")
    options = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: matplotlib is missing: pip install edgeq[bench]")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "edgeq"  # the same figure, the same bytes
    import matplotlib.pyplot as plt

    given = options.results or sorted(RESULTS.glob("*.csv"))
    options.out.mkdir(parents=True, exist_ok=True)
    written = [file for path in given for file in figures(path, plt, options.out)]
    if not written:
        sys.exit("plot.py: there is nothing to draw: run bench/compare.py first")
    print(*written, sep="\n")


if __name__ == "__main__":
    script.run(main)
