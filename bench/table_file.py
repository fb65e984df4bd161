"""Rows of results as CSV files that later rows are merged into, and as Markdown tables."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar, TypeVar

from edgeq.errors import OutputError, UsageError
from edgeq.system.output import write_file


@dataclass
class Measured:
    """A row of results; a later row with the same KEY replaces an earlier one. Subclasses are dataclasses too."""

    KEY: ClassVar[tuple[str, ...]]

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(_cell(getattr(self, name)) for name in self.KEY)


MeasuredRow = TypeVar("MeasuredRow", bound=Measured)


def to_cells(row: Measured) -> dict[str, str]:
    return {name: _cell(value) for name, value in asdict(row).items()}


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{v:.6g}" for v in value)
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_of(path: Path, kind: type[Measured]) -> list[dict[str, str]]:
    """The file's rows of a kind, empty in columns that it lacks. UsageError for a file of something else."""
    names = [field.name for field in fields(kind)]
    try:
        cells = read(path)
    except (csv.Error, UnicodeDecodeError):
        raise UsageError(f"{path}: is not a CSV file: give another --results") from None
    if not all(set(kind.KEY) <= row.keys() <= set(names) for row in cells):
        raise UsageError(f"{path}: has other columns than these results: give another --results")
    return [dict.fromkeys(names, "") | row for row in cells]


def key_of(cells: Mapping[str, str], kind: type[Measured]) -> tuple[str, ...]:
    return tuple(cells[name] for name in kind.KEY)


def merged(path: Path, rows: Iterable[Measured]) -> list[dict[str, str]]:
    """The rows of the file and the new ones, which replace those they measure again."""
    rows = list(rows)
    if not rows:
        return read(path)
    kind, new = type(rows[0]), {row.key: to_cells(row) for row in rows}
    kept = [new.pop(key_of(cells, kind), cells) for cells in rows_of(path, kind)]
    return kept + list(new.values())


def keep(path: Path, rows: Sequence[Measured]) -> list[dict[str, str]]:
    """Merge rows into the CSV file, which is replaced at once; all that it holds then."""
    cells = merged(path, rows)
    if rows:
        write(path, cells, [field.name for field in fields(rows[0])])
    return cells


def keep_each(path: Path, kind: type[MeasuredRow], rows: Iterable[MeasuredRow]) -> list[MeasuredRow]:
    """Keep each row as soon as it is measured: what comes after may fail. All of them, at the end.

    A file that cannot take them is refused before the first is measured.
    """
    rows_of(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder cannot be written: give another --results")
    measured = []
    for row in rows:
        keep(path, [row])
        measured.append(row)
    return measured


def write(path: Path, cells: Sequence[Mapping[str, object]], names: Sequence[str]) -> None:
    """Replace the CSV file at once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.getvalue().encode())


def table(headings: Iterable[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a heading's flag tells whether its column stands to the right."""
    headings = list(headings)
    lines = [
        "| " + " | ".join(name for name, _ in headings) + " |",
        "|" + "|".join("--:" if right else "---" for _, right in headings) + "|",
    ]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def number(text: str, digits: int | None = None) -> str:
    """A cell for people; nothing where there is no number."""
    if not text:
        return ""
    value = float(text)
    return f"{value:.{digits}f}" if digits is not None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def against(share: str, limit: str) -> str:
    """A share and the limit it is of; nothing where it does not apply."""
    return f"{100 * float(share):.0f} % of {float(limit):.1f}" if share else ""
