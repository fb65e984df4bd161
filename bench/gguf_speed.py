"""How fast GGUF files come in and go out, beside a plain copy of the same file.

    python bench/gguf_speed.py --work /dev/shm

Of each block type a synthetic model of --megabytes is written to --work: a folder in memory shows what the processors
take, one on a disk what a user waits for. MB/s are of the GGUF file; each figure is the median of --repetitions, after
one that compiles and reads the source in. A written file is on the disk when the time ends.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import script
from machine import cores, machine
from synthetic import SyntheticFile
from table_file import table

from edgeq.blocks.table import BLOCK_TYPES
from edgeq.container.placement import TensorSpec
from edgeq.container.writer import Writer
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.importer import import_gguf

TYPES = [name for name, bt in BLOCK_TYPES.items() if bt.quantized and bt.gguf_id is not None]


def write_model(path: Path, block_type: str, nbytes: int) -> None:
    """A Llama in TinyLlama's shapes whose matrices are of one type."""
    model = SyntheticFile(block_type, nbytes_at_least=nbytes, shared=True, max_position_embeddings=2048)
    specs = [TensorSpec(info.name, info.shape, info.type) for info in model.tensors.values()]
    with Writer(path, specs, model.metadata, {}) as writer:
        for info in model.tensors.values():
            writer.write(info.name, model.data(info.name))


def copy(source: Path, target: Path) -> None:
    """Without a checksum; by read and write, as no file system may share the blocks."""
    with source.open("rb") as read, target.open("wb") as written:
        while chunk := read.read(1 << 20):
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())


def seconds(work: Callable[[], object], repetitions: int) -> float:
    """The median time of `work`, after a first one that does not count."""
    times = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def measure(name: str, folder: Path, options: argparse.Namespace) -> tuple[str, ...]:
    """Type, MB, and MB/s of a copy, of the export and of the import."""
    model, gguf, back = folder / "m.eqf", folder / "m.gguf", folder / "back.eqf"
    write_model(model, name, options.megabytes * 1_000_000)
    out = seconds(lambda: export_gguf(model, gguf), options.repetitions)
    into = seconds(lambda: import_gguf(gguf, back, threads=options.threads), options.repetitions)
    plain = seconds(lambda: copy(gguf, back), options.repetitions)
    size = gguf.stat().st_size / 1e6
    return name, f"{size:.0f}", *(f"{size / took:.0f}" for took in (plain, out, into))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", default=TYPES, help="block types  [default: all quantized ones of GGUF]")
    parser.add_argument("--megabytes", type=script.count, default=400, help="of weights  [default: 400]")
    parser.add_argument("--threads", type=script.count, default=cores(), help="of an import  [default: all cores]")
    parser.add_argument("--repetitions", type=script.count, default=3, help="[default: 3]")
    parser.add_argument("--work", type=script.folder, help="folder for the files  [default: a temporary one]")
    options = parser.parse_args()
    headings = [("type", False)] + [(name, True) for name in ("MB", "copy, MB/s", "export, MB/s", "import, MB/s")]
    if unknown := [name for name in options.types if name not in TYPES]:
        parser.error(f"{unknown[0]!r} is no quantized type of GGUF that edgeq writes: give some of {', '.join(TYPES)}")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        rows = [measure(name, Path(folder), options) for name in options.types]
    print(f"{machine()}, {options.threads} threads")
    print(table(headings, rows))


if __name__ == "__main__":
    script.run(main)
