"""What bench/compare.py measured: one row per model, test and number of threads; CSV and Markdown."""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median


@dataclass
class Row:
    """Rates are from median seconds. Limits were measured in the same run, with the same threads.

    same_bits: whether both engines ran the same blocks, or the peer some with more bits
    *_seconds: of every turn
    *_other_cpus: processors that something else than the engine kept busy in its turns, on average
    dot_peak: multiply-adds per second that edgeq's byte dot products reach from L1 with the model's mix of code widths
    of_*: what edgeq reaches of a limit; GB/s of a model that fits in the cache can exceed the memory's
    """

    date: str
    machine: str
    isa: str
    edgeq: str
    peer: str
    model: str
    file_bytes: int
    same_bits: bool
    test: str
    threads: int
    edgeq_seconds: list[float]
    peer_seconds: list[float]
    edgeq_tokens_per_second: float
    peer_tokens_per_second: float
    ratio: float
    edgeq_other_cpus: float
    peer_other_cpus: float
    g_multiply_adds_per_second: float
    dot_peak_g: float | None
    of_dot_peak: float | None
    gb_per_second: float | None
    read_bandwidth_gb: float
    of_read_bandwidth: float | None

    @property
    def key(self) -> tuple[str, ...]:
        """A later row with the same key replaces this one."""
        return (self.model, self.test, str(self.threads))


def rates(tokens: int, ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Tokens per second of both, from median seconds, and their ratio: above 1 edgeq is faster."""
    a, b = tokens / median(ours), tokens / median(theirs)
    return {"edgeq_tokens_per_second": a, "peer_tokens_per_second": b, "ratio": a / b}


def to_cells(row: Row) -> dict[str, str]:
    return {name: _cell(value) for name, value in asdict(row).items()}


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{v:.6g}" for v in value)
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def merged(path: Path, rows: Iterable[Row]) -> list[dict[str, str]]:
    """The rows of the file and the new ones, which replace those they measure again."""
    new = {row.key: to_cells(row) for row in rows}
    old: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            old = list(csv.DictReader(file))
    kept = [new.pop((cells["model"], cells["test"], cells["threads"]), cells) for cells in old]
    return kept + list(new.values())


def write(path: Path, cells: list[dict[str, str]]) -> None:
    """Replace the CSV file at once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text.getvalue())
    os.replace(temporary, path)


HEADINGS = (
    ("model", False),
    ("test", False),
    ("threads", True),
    ("edgeq t/s", True),
    ("llama.cpp t/s", True),
    ("ratio", True),
    ("G multiply-adds/s", True),
    ("of the dot peak", True),
    ("GB/s", True),
    ("of the read bandwidth", True),
)


def markdown(cells: Iterable[dict[str, str]]) -> str:
    """The table for people: edgeq's figures against the limits, the peer's rate beside."""
    lines = [
        "| " + " | ".join(name for name, _ in HEADINGS) + " |",
        "|" + "|".join("--:" if right else "---" for _, right in HEADINGS) + "|",
    ]
    for row in cells:
        mark = "" if row["same_bits"] == "True" else " *"
        values = [
            row["model"] + mark,
            row["test"],
            row["threads"],
            _number(row["edgeq_tokens_per_second"]),
            _number(row["peer_tokens_per_second"]),
            _number(row["ratio"], 2),
            _number(row["g_multiply_adds_per_second"], 1),
            _against(row["of_dot_peak"], row["dot_peak_g"]),
            _number(row["gb_per_second"], 1),
            _against(row["of_read_bandwidth"], row["read_bandwidth_gb"]),
        ]
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


def _number(text: str, digits: int | None = None) -> str:
    if not text:
        return ""
    value = float(text)
    return f"{value:.{digits}f}" if digits is not None else f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _against(share: str, limit: str) -> str:
    """A share and the limit it is of; nothing where it does not apply."""
    return f"{100 * float(share):.0f} % of {float(limit):.1f}" if share else ""
