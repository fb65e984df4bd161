"""llama.cpp's programs for bench/judge.py: what they are asked, and the files that they make, each made once."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeq.errors import NotFoundError, UsageError

CONTEXT = 512  # tokens of a chunk; the second half of each is judged, as llama-perplexity does by default
_NUMBER = r"(-?[\d.]+(?:e[+-]?\d+)?|-?nan|-?inf)"
# What llama-perplexity prints, and the column that it becomes; with the standard error where there is one
_LINES = {
    "perplexity": r"Mean PPL\(Q\)",
    "ppl_ratio": r"Mean PPL\(Q\)/PPL\(base\)",
    "kl": r"Mean\s+KLD",
    "kl_median": r"Median\s+KLD",
    "kl_90": r"90\.0%\s+KLD",
    "kl_95": r"95\.0%\s+KLD",
    "kl_99": r"99\.0%\s+KLD",
    "kl_999": r"99\.9%\s+KLD",
    "kl_max": r"Maximum KLD",
    "rms_delta_p": r"RMS Δp",
    "same_top": r"Same top p",
}
WITH_ERROR = ("ppl_ratio", "kl", "same_top")


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, which `make` writes if it is not there, under another name until it is whole."""
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{path.name}")
        make(unfinished)
        os.replace(unfinished, path)
    return path


def statistics(text: str) -> dict[str, float]:
    """The columns that the output of `llama-perplexity --kl-divergence` gives. UsageError if one is missing."""
    found: dict[str, float] = {}
    for name, line in _LINES.items():
        match = re.search(rf"^\s*{line}\s*:\s*{_NUMBER}(?:\s*±\s*{_NUMBER})?", text, re.MULTILINE)
        if match is None:
            raise UsageError(f"llama-perplexity says nothing of {name}: its version is another one than was expected")
        found[name] = float(match[1])
        if name in WITH_ERROR:
            found[f"{name}_error"] = float(match[2])
    return found


@dataclass(frozen=True)
class LlamaTools:
    """The programs in a folder, and how many threads they get."""

    folder: Path
    threads: int

    def run(self, program: str, *arguments: str | Path) -> str:
        """What it prints to stdout. NotFoundError without the program, UsageError with its last line if it fails."""
        path = self.folder / program
        if not path.is_file():
            raise NotFoundError(f"{path}: no such program: build llama.cpp, and name the folder of its programs")
        done = subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
        out, said = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        if done.returncode:
            last = (said.strip() or out.strip() or "nothing was said").splitlines()[-1]
            raise UsageError(f"{program} failed with code {done.returncode}: {last}")
        return out

    def base(self, model: Path, text: Path, chunks: int, out: Path) -> Path:
        """The logits of a model, as the file that `divergence` compares others with."""

        def make(path: Path) -> None:
            self.run("llama-perplexity", *self._over(model, text, chunks), "--kl-divergence-base", path)

        return once(out, make)

    def divergence(self, model: Path, base: Path) -> str:
        """What llama-perplexity prints of a model beside the logits `base`."""
        arguments = ("-m", model, "-t", str(self.threads), "--kl-divergence", "--kl-divergence-base", base)
        return self.run("llama-perplexity", *arguments)

    def imatrix(self, model: Path, text: Path, chunks: int, out: Path) -> Path:
        """An importance matrix."""

        def make(path: Path) -> None:
            arguments = self._over(model, text, chunks)
            self.run("llama-imatrix", *arguments, "--no-ppl", "-o", path)

        return once(out, make)

    def quantize(self, model: Path, imatrix: Path | None, kind: str, out: Path) -> Path:
        """A model quantized, with an importance matrix or without."""

        def make(path: Path) -> None:
            options = ("--imatrix", imatrix) if imatrix else ()
            self.run("llama-quantize", *options, model, path, kind, str(self.threads))

        return once(out, make)

    def _over(self, model: Path, text: Path, chunks: int) -> tuple[str | Path, ...]:
        return ("-m", model, "-f", text, "-c", str(CONTEXT), "--chunks", str(chunks), "-t", str(self.threads))
