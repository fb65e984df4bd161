"""What adapters are asked for, and where their files are."""

import os
import sys
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from edgeq.errors import NotFoundError, UsageError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
Lora = str | os.PathLike[str] | tuple[str | os.PathLike[str], float]


class Wanted(NamedTuple):
    """An adapter, a PEFT folder or a GGUF file, and what it is multiplied by."""

    path: Path
    scale: float

    @property
    def told(self) -> str:
        """By its last name: a path says more about a machine than about a model."""
        return f"{Path(os.path.realpath(self.path)).name} x {self.scale:g}"


def wanted(lora: Iterable[Lora]) -> tuple[Wanted, ...]:
    """What `lora` asks for, in order, without what is multiplied by 0: each a path, `PATH:SCALE`, or (path, scale).

    UsageError for anything else, NotFoundError for a path where nothing is; what is there is not looked at.
    """
    if isinstance(lora, str | bytes | os.PathLike) or not isinstance(lora, Iterable):
        raise UsageError(f"lora must be a list of adapters, as [{lora!r}]")
    return tuple(one for one in map(_wanted, lora) if one.scale != 0)


def _wanted(lora: Any) -> Wanted:
    path, scale = lora if isinstance(lora, tuple) and len(lora) == 2 else (lora, None)
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise UsageError(f"{lora!r} is no adapter: give a path, PATH:SCALE, or (path, scale)")
    if scale is None:
        path, scale = _parsed(path)
    if isinstance(scale, bool) or not isinstance(scale, Real) or not _finite(scale):
        raise UsageError(f"the scale of {os.fspath(path)} is {scale!r}: give a number, as 0.5")
    place = Path(os.path.expanduser(path))
    if not place.exists():
        raise NotFoundError(f"{place}: no such file or folder: give that of an adapter, PATH or PATH:SCALE")
    return Wanted(place, float(scale))


def _finite(value: Any) -> bool:
    """Also of integers that no float holds."""
    return bool(abs(value) <= sys.float_info.max)


def _parsed(path: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], float]:
    """The path and the scale of `PATH:SCALE`; 1 where there is none."""
    if not isinstance(path, str) or os.path.exists(path):
        return path, 1.0
    stem, _, scale = path.rpartition(":")
    try:
        return (stem, float(scale)) if stem else (path, 1.0)
    except ValueError:
        return path, 1.0


def files_of(path: Path) -> list[str]:
    """The files of an adapter that are there."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name in (CONFIG, *WEIGHTS):
        return [str(folder / name) for name in (CONFIG, *WEIGHTS) if (folder / name).is_file()]
    return [str(path)] if path.exists() else []
