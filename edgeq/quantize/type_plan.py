"""A plan: the type of every matrix, chosen for this model and a goal, with the loss that is predicted.

A plan can be printed, kept as TOML, changed by hand and followed again.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq.blocks.table import block_type, tensor_bytes
from edgeq.container.reader import File
from edgeq.errors import UnsupportedError, UsageError
from edgeq.quantize.allocation import Candidate, allocate
from edgeq.quantize.sensitivity import Sensitivities
from edgeq.system.input import read_bytes
from edgeq.system.output import write_file

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")  # that matrices may get, where GGUF need not hold them
MOST_BYTES = 4 << 20  # of a plan: a matrix takes some 40
GGUF_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


@dataclass(frozen=True)
class Goal:
    """What a file is to be: of at most `nbytes`, or of as few as a predicted divergence of `divergence` takes."""

    nbytes: float = float("inf")
    divergence: float = 0.0


@dataclass(frozen=True)
class Plan:
    """types: of every matrix by name; divergence: predicted, in nats, NaN where nothing was predicted."""

    types: Mapping[str, str]
    divergence: float = float("nan")

    def __str__(self) -> str:
        counts = Counter(self.types.values())
        parts = [f"{counts[kind]} {kind}" for kind in sorted(counts, key=lambda kind: -counts[kind])]
        return f"{', '.join(parts)}; predicted divergence {self.divergence:.4f}"


def plan(file: File, found: Sensitivities, goal: Goal, fixed_bytes: int, gguf: bool = False) -> Plan:
    """The types for the float model `file` that serve a goal best; `fixed_bytes` are those of all but its matrices.

    Raises UsageError for a goal that no types reach.
    """
    candidates = {name: _candidates(file, name, found.added(name), gguf) for name in found.losses}
    chosen = allocate(candidates, goal.nbytes - fixed_bytes, max(goal.divergence - found.floor, 0.0))
    nbytes, divergence = sum(one.nbytes for one in chosen.values()), sum(one.loss for one in chosen.values())
    divergence += found.floor
    check_size(nbytes + fixed_bytes, goal)
    if goal.divergence and divergence > goal.divergence:
        raise UsageError(
            f"a divergence of {goal.divergence:g} is less than that of any type here, {divergence:.2g}: ask for more"
        )
    return Plan({name: one.type for name, one in chosen.items()}, divergence)


def check_size(least: float, goal: Goal) -> None:
    """UsageError where a goal is fewer bytes than it takes at least."""
    if least > goal.nbytes:
        raise UsageError(f"takes at least {least / 1e6:.1f} MB, more than {goal.nbytes / 1e6:.1f}: ask for more")


def smallest(shape: tuple[int, ...], usual: str, gguf: bool = False) -> str:
    """The type of fewest bytes that a matrix may get, whose `usual` one may be smaller still."""
    holds = _in_gguf if gguf else _in_file
    kinds = [kind for kind in (GGUF_TYPES if gguf else TYPES) if holds(kind, shape[-1])]
    return min([usual, *kinds], key=lambda kind: tensor_bytes(kind, shape))


def _candidates(file: File, name: str, losses: Mapping[str, float], gguf: bool) -> list[Candidate]:
    """Those of a matrix."""
    info = file.tensors[name]
    return [
        Candidate(kind, tensor_bytes(kind, info.shape), losses[kind])
        for kind in (GGUF_TYPES if gguf else TYPES)
        if kind in losses and (not gguf or _in_gguf(kind, info.shape[-1]))
    ] or [Candidate("F16", tensor_bytes("F16", info.shape), 0.0)]


def _in_file(kind: str, columns: int) -> bool:
    try:
        tensor_bytes(kind, (1, columns))
    except UnsupportedError:
        return False
    return True


def _in_gguf(kind: str, columns: int) -> bool:
    try:
        block_type(kind).gguf_bytes(1, columns)
    except UnsupportedError:
        return False
    return True


def override(types: Mapping[str, str], rules: Sequence[tuple[str, str]]) -> dict[str, str]:
    """`types` with those that rules (regular expression, type) give: the last one that is found in a name counts.

    Raises UsageError for what is no expression, no type, or is found in no name.
    """
    changed = dict(types)
    for pattern, kind in rules:
        try:
            known, found = block_type(kind).name, [name for name in types if re.search(pattern, name)]
        except re.error as error:
            raise UsageError(f"{pattern!r} is no regular expression: {error}") from None
        except UnsupportedError as error:
            raise UsageError(str(error)) from None
        if not found:
            raise UsageError(f"{pattern!r} is found in no matrix' name, as {next(iter(types))!r} is one")
        changed |= dict.fromkeys(found, known)
    return changed


def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Keep a plan as TOML. OutputError where that cannot be written."""
    lines = [f"divergence = {plan.divergence}", "", "[types]"]
    lines += [f'"{name}" = "{kind}"' for name, kind in plan.types.items()]
    write_file(path, ("\n".join(lines) + "\n").encode())


def load(path: str | os.PathLike[str]) -> Plan:
    """A plan that was kept. UsageError for what is none."""
    try:
        text = read_bytes(path, MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"has more than {MOST_BYTES >> 20} MiB")
        content = tomllib.loads(text.decode("utf-8"))
        types = content["types"]
        return Plan({name: block_type(kind).name for name, kind in types.items()}, float(content["divergence"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, UnsupportedError) as error:
        why = str(error.strerror if isinstance(error, OSError) else error)
    except RecursionError:
        why = "is nested too deep"
    raise UsageError(f"{os.fspath(path)}: is no plan: {why}: --save-plan writes one")
