"""What bench/compare.py measured: one row per model, test, number of threads and kernels' body."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from table_file import Measured, against, number, table


@dataclass
class Row(Measured):
    """Rates are from median seconds. Limits are medians of measurements around the turns, with the same threads.

    same_bits: whether both engines ran the same blocks, or the peer some with more bits
    *_seconds: of every turn
    *_other_cpus: processors that something else than the engine kept busy in its turns, on average
    dot_peak: multiply-adds per second that edgeq's byte dot products reach from L1 with the model's mix of code widths
    of_*: what edgeq reaches of a limit; GB/s of a model that fits in the cache can exceed the memory's
    mb_per_token: weights, and keys and values that a generated token reads
    peer_gb_per_second: of the peer's own weights, which are larger where same_bits is False
    """

    KEY: ClassVar = ("model", "test", "threads", "isa")

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
    mb_per_token: float | None
    peer_gb_per_second: float | None


def rates(tokens: int, ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Tokens per second of both, from median seconds, and their ratio: above 1 edgeq is faster."""
    a, b = tokens / median(ours), tokens / median(theirs)
    return {"edgeq_tokens_per_second": a, "peer_tokens_per_second": b, "ratio": a / b}


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
    """The table for people: edgeq's figures against the limits, the peer's rate beside; bodies where they differ."""
    cells = list(cells)
    several = len({row["isa"] for row in cells}) > 1
    return table(
        HEADINGS,
        [
            (
                row["model"] + (f" ({row['isa']})" if several else "") + ("" if row["same_bits"] == "True" else " *"),
                row["test"],
                row["threads"],
                number(row["edgeq_tokens_per_second"]),
                number(row["peer_tokens_per_second"]),
                number(row["ratio"], 2),
                number(row["g_multiply_adds_per_second"], 1),
                against(row["of_dot_peak"], row["dot_peak_g"]),
                number(row["gb_per_second"], 1),
                against(row["of_read_bandwidth"], row["read_bandwidth_gb"]),
            )
            for row in cells
        ],
    )
