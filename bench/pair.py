"""edgeq and llama.cpp side by side: both engines with one model, each a resident process, asked in turns."""

import argparse
import contextlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import export_gguf
import psutil
import script
from machine import busy_seconds
from turns import Engine

from edgeq.cli.roofline import Case, Limits, Work, work
from edgeq.container.reader import open_file
from edgeq.system.output import write_file

HERE = Path(__file__).resolve().parent
PAUSE = 0.05  # seconds between turns, in which the other engine's threads fall asleep
TEXT = (
    "A small boat left the harbour in the morning. The wind was mild, and the two friends on board talked about "
    "the island, the old lighthouse and what they would eat when they came back home in the evening."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of scripts that run a pair."""
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama_cpp  [default: this]")
    parser.add_argument("--gguf", type=script.folder, help="folder of the GGUF files  [default: the model's]")
    parser.add_argument(
        "--fallback",
        action="store_true",
        help="where GGUF cannot hold the bits, give llama.cpp what its own quantizer takes instead, which has more",
    )


def gguf_file(model: Path, options: argparse.Namespace) -> Path:
    """The model for llama.cpp, written unless it was made from this very file. EdgeqError for a file that is none.

    Beside it is a JSON file that tells what it was made from.
    """
    open_file(model).close()  # a file that is none is told before anything is written
    path: Path = (options.gguf or model.parent) / f"{model.stem}.peer{'-fallback' if options.fallback else ''}.gguf"
    record, status = path.with_name(f"{path.name}.json"), model.stat()
    source = {"made_from": model.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if not path.exists() or _recorded(record) != source:
        print(f"writing {path}", file=sys.stderr)
        record.unlink(missing_ok=True)  # of an earlier file: it goes first and comes last
        export_gguf.export(model, path, options.fallback)
        write_file(record, json.dumps(source).encode())
    return path


def _recorded(record: Path) -> object:
    """None for a file that is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(record.read_bytes())
    return None


class Pair:
    """Both engines with one model. Close it."""

    def __init__(self, model: Path, context: int, options: argparse.Namespace):
        path = gguf_file(model, options)
        self.model = model
        with open_file(model) as file:
            self.vocabulary = file.tensors["token_embd.weight"].shape[0]
            matrices = {t.name: export_gguf.target(t, True) for t in file.tensors.values() if len(t.shape) == 2}
            asked = work(file.tensors)
            head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
            self.peer_nbytes = sum(
                to.row_bytes * file.tensors[name].shape[0]
                for name, to in matrices.items()
                if name == head or name != "token_embd.weight"
            )
        self.same_bits = not any(to.again for to in matrices.values())
        self.edgeq = Engine([sys.executable, str(HERE / "engine_edgeq.py"), str(model), str(context)])
        try:
            self.peer = Engine([options.peer_python, str(HERE / "engine_llama.py"), str(path), str(context)])
        except BaseException:
            self.edgeq.close()
            raise
        self.work: Work = replace(asked, kv=dict(self.edgeq.ask("kv", threads=1)))

    @property
    def engines(self) -> tuple[Engine, Engine]:
        return self.edgeq, self.peer

    def request(self, case: Case, threads: int, count: int | None = None) -> dict[str, Any]:
        """What both engines are asked for a test, or for its first `count` tokens."""
        ids = [i * 7919 % self.vocabulary for i in range(max(case.depth, case.tokens))]
        return {
            "before": ids[: case.depth],
            "tokens": ids[: case.tokens if count is None else min(count, case.tokens)],
            "batch": case.kind == "pp",
            "threads": threads,
        }

    def warm_up(self, case: Case, threads: int) -> None:
        """Fill the context to the test's depth, and run some of its tokens."""
        for engine in self.engines:
            engine.ask("seconds", **self.request(case, threads, 64 if case.kind == "pp" else 4))

    def limits(self, threads: int) -> Limits:
        """The machine's, of now; less than half a second."""
        bits = [b for b in self.work.bits if b <= 8]
        found = self.edgeq.ask("limits", threads=threads, bits=bits)
        return Limits(found["read"], {int(b): peak for b, peak in found["dots"].items()})

    def agreement(self, threads: int, context: int) -> str:
        """Whether both engines compute the same model: how often they find the same token the likeliest."""
        tokens = self.edgeq.ask("tokens", text=TEXT)[:context]
        ours, theirs = (e.ask("likeliest", tokens=tokens, threads=threads) for e in self.engines)
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        return f"{self.model.stem}: the likeliest next token is the same at {same} of {len(tokens)} positions"

    def close(self) -> None:
        self.edgeq.close()
        self.peer.close()


def turn(engine: Engine, request: dict[str, Any]) -> tuple[float, float]:
    """Seconds of a test, and the processors that something else kept busy meanwhile."""
    process = psutil.Process(engine.process.pid)
    time.sleep(PAUSE)
    before, own, began = busy_seconds(), sum(process.cpu_times()[:2]), time.perf_counter()
    seconds = engine.ask("seconds", **request)
    other = busy_seconds() - before - (sum(process.cpu_times()[:2]) - own)
    return seconds, max(0.0, other / (time.perf_counter() - began))
