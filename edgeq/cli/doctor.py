"""`edgeq doctor`: what this machine can do, and whether a model runs on it.

Facts are gathered as plain data, which `--json` prints; the text is made from the same data. A problem says what it is
about, what is wrong and what to do.
"""

import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeq.cli.announcer import tell
from edgeq.cli.json_output import json_option, show_json
from edgeq.cli.options import KV, THREADS, Announcer, made_runnable
from edgeq.cli.progress import status
from edgeq.cli.units import binary_size
from edgeq.errors import EdgeqError, MemoryLimitError

if TYPE_CHECKING:
    from edgeq.container.reader import File
    from edgeq.runtime.fit import Fit
    from edgeq.runtime.hardware import Core

Facts = dict[str, Any]

SHOWN = 3  # models that are worth a try
DECODED = 16  # tokens of the short run
LOW_DISK = 200 << 20  # bytes: a cache of kernels and some room
WIDE = 12  # characters of the names of rows


@click.command("doctor")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "-c",
    "--context",
    "--ctx-size",
    type=click.IntRange(0),
    help="With MODEL: judge this context.  [default: as for run]",
)
@KV
@click.option("--no-speed", is_flag=True, help="Measure no speeds: no kernel is compiled, and MODEL is not run.")
@json_option
@THREADS
def command(
    model: Path | None, context: int | None, kv: str | None, no_speed: bool, as_json: bool, threads: int | None
) -> int:
    """Tell what edgeq finds on this machine: CPU, cores, memory, kernels, speed. Problems come with what to do.

    With MODEL, whatever can be run: the memory it needs, the largest context that fits, and the speed to expect beside
    that of a short run. The exit code is 2 if it cannot run here.
    """
    facts = examine(model, context, threads, speed=not no_speed, kv=kv)
    if as_json:
        show_json(facts)
    else:
        for line in lines(facts):
            tell(line)
    return 0 if facts.get("model", {}).get("runs", True) else 2


def examine(
    model: Path | None, context: int | None, threads: int | None, speed: bool = True, kv: str | None = None
) -> Facts:
    """Everything that `edgeq doctor` tells. Bytes, bytes per second, multiply-adds per second, tokens per second.

    Raises FormatError and UnsupportedError for a file that is none or that this version does not know, UsageError for
    an impossible number of threads.
    """
    from edgeq.runtime.team import team_size

    team = team_size(threads)
    if model is not None:
        from edgeq.container.reader import open_file

        model = made_runnable(model)
        open_file(model).close()  # what is none says so before anything is measured
    facts: Facts = {"problems": []}
    facts["cpu"] = _cpu(facts)
    facts["cores"] = _cores(team)
    facts["memory"] = _memory(facts)
    facts["kernels"] = _kernels(facts)
    if speed:
        facts["speed"] = _speed(facts, team)
    if model is None:
        facts["models"] = _models(facts)
    else:
        with open_file(model) as file:
            facts["model"] = _model(facts, file, context, kv, team)
        if speed and facts["model"]["runs"]:
            facts["model"]["measured_rate"] = _decode(facts, model, facts["model"]["context"], kv, team)
    return facts


def _problem(facts: Facts, about: str, wrong: str, advice: str) -> None:
    facts["problems"].append({"about": about, "problem": wrong, "advice": advice})


# ---- the machine ----


def _cpu(facts: Facts) -> Facts:
    from edgeq.runtime import hardware
    from edgeq.runtime.kernel_state import bodies, kernel_state

    name = kernel_state(()).body
    if sys.maxsize < 1 << 32:
        _problem(facts, "cpu", "this Python is a 32-bit one", "use a 64-bit system: packages exist for those only")
    better = list(takewhile(lambda row: row[0] != name, bodies()))
    if any(not lacking for _, _, lacking in better):
        _problem(facts, "cpu", f"EDGEQ_ISA asks for {name}, which is slower than need be", "unset EDGEQ_ISA")
    return {
        "name": hardware.cpu_name(),
        "machine": platform.machine(),
        "body": name,
        "not_used": {other: lacking for other, _, lacking in better},
    }


def _cores(team: int) -> Facts:
    from edgeq.runtime import hardware

    found = hardware.cores()

    def group(cores: "tuple[Core, ...]") -> list[Facts]:
        return [asdict(core) for core in cores]

    restricted = found.restriction(team)
    return {
        "online": len(found.online),
        "fast": group(found.fast),
        "slow": group(found.slow),
        "quota": found.quota,
        "threads": team,
        "default_threads": found.threads,
        "restricted_to": sorted(restricted) if restricted else None,
        "reasons": list(found.reasons),
    }


def _memory(facts: Facts) -> Facts:
    from edgeq.runtime import hardware
    from edgeq.runtime.fit import available_memory
    from edgeq.system import cgroups

    memory, limit = hardware.memory(), cgroups.memory_limit()
    return {
        "total": memory.total,
        "available": available_memory(),
        "group_limit": None if limit is None else limit.limit,
        "group_available": None if limit is None else limit.available,
        "page_size": hardware.page_size(),
    }


def _kernels(facts: Facts) -> Facts:
    from edgeq.runtime.kernel_state import kernel_state
    from edgeq.runtime.limits import KERNELS
    from edgeq.toolchain.compilers import REMEDY

    state = kernel_state(KERNELS)
    folder = next(parent for parent in (state.folder, *state.folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK and state.missing:
        _problem(facts, "kernels", f"{binary_size(free)} are free in {folder}", "make room, or set EDGEQ_CACHE")
    if not state.usable:
        _problem(facts, "kernels", f"none are there, and {state.no_compiler}", f"{REMEDY}, or bundle them")
    for line in state.refused:
        _problem(facts, "kernels", *line.rsplit(": ", 1))
    return {
        "not_used": list(state.passed_over) if state.library is None else [],
        "library": {"path": str(state.library[0]), "cpu": state.library[1]} if state.library else None,
        "folder": str(state.folder),
        "free": free,
        "compiler": not state.no_compiler,
        "no_compiler": state.no_compiler,
        "cached": (state.folder / "kernels").is_dir(),
    }


def _speed(facts: Facts, team: int) -> Facts | None:
    """Read bandwidth and int8 dot peak with the threads that run a model; None where that cannot be measured."""
    from edgeq.runtime.kernel_state import kernel_state
    from edgeq.runtime.limits import KERNELS, LEAST_READ_BYTES, dot_peak, prepare, read_bandwidth
    from edgeq.runtime.team import Team

    if facts["memory"]["available"] < 2 * LEAST_READ_BYTES:
        room = binary_size(facts["memory"]["available"])
        _problem(facts, "speed", f"not measured: {room} of memory are available", "end other programs, or add memory")
        return None
    if not kernel_state(KERNELS).usable:
        return None
    prepare([4], Announcer())
    running = Team(team)
    try:
        with status("measuring how fast memory is read and int8 dots are computed"):
            return {"read_bandwidth": read_bandwidth(running), "dot_peak": dot_peak(running)}
    finally:
        running.close()


def _models(facts: Facts) -> list[Facts]:
    """The largest models worth a try that fit, and the speed to expect of each: read bandwidth by bytes of weights."""
    from edgeq.store.recommended import fitting

    bandwidth = (facts.get("speed") or {}).get("read_bandwidth")
    return [
        {
            "name": row.name,
            "repository": row.repository,
            "memory": row.memory,
            "expected_rate": bandwidth / row.weights if bandwidth else None,
        }
        for row in fitting(facts["memory"]["available"])[-SHOWN:]
    ]


# ---- a model on it ----


def _model(facts: Facts, file: "File", context: int | None, kv: str | None, team: int) -> Facts:
    from edgeq.cli.roofline import work
    from edgeq.runtime.fit import available_memory, kernel_names
    from edgeq.runtime.kernel_state import kernel_state
    from edgeq.runtime.program import context_of, fit_of
    from edgeq.toolchain.compilers import REMEDY

    fit = fit_of(file, team, kv)
    context = context_of(fit.model, context)
    need, available = fit.estimate(context), available_memory()
    largest = fit.largest_context(available)
    runs = _judge(facts, fit, context, available)
    state = kernel_state(kernel_names(file))
    if not state.usable:
        _problem(facts, "model", f"its kernels are missing: {', '.join(state.missing)}", REMEDY)
        runs = False
    asked = work(file.tensors, experts_read=fit.model.experts_read).nbytes
    bandwidth = (facts.get("speed") or {}).get("read_bandwidth")
    return {
        "file": str(file.path),
        "runs": runs,
        "context": context,
        "need": {**asdict(need), "total": need.total},
        "available": available,
        "largest_context": largest,
        "trained_context": fit.model.max_position_embeddings,
        "to_compile": list(state.missing),
        "bytes_per_token": asked,
        "expected_rate": bandwidth / asked if bandwidth else None,
        "full_rate": bandwidth / (asked + need.kv) if bandwidth else None,  # where the context is full
    }


def _judge(facts: Facts, fit: "Fit", context: int, available: int) -> bool:
    """Whether the model fits; if not, that is a problem."""
    try:
        fit.check(context, available)
    except MemoryLimitError as error:
        wrong, _, advice = str(error).removeprefix(f"{fit.file.path}: ").partition(" available: ")
        _problem(facts, "model", f"{wrong} available", advice)
        return False
    return True


def _decode(facts: Facts, model: Path, context: int, kv: str | None, team: int) -> float | None:
    """Tokens per second of a short run, after one token that reads the file's pages in."""
    from edgeq.container.reader import open_file
    from edgeq.runtime.session import Session

    try:
        with (
            open_file(model) as file,
            Session(file, context=context, threads=team, kv=kv, announce=Announcer()) as session,
            status(f"running the model for {DECODED + 1} tokens"),
        ):
            session.eval([0])
            count = min(DECODED, context - 1)
            began = time.perf_counter()
            for token in range(1, count + 1):
                if not session.model.heads.causal:
                    session.rewind(0)  # an encoder takes a text as a whole
                session.eval([token])
            return count / (time.perf_counter() - began) if count else None
    except EdgeqError as error:
        _problem(facts, "model", "a short run failed", str(error))
        facts["model"]["runs"] = False
        return None


# ---- text ----


def lines(facts: Facts) -> list[str]:
    """The facts for people, a problem below what it is about."""
    sections: dict[str, Callable[[Any], list[tuple[str, str]]]] = {
        "cpu": _cpu_lines,
        "cores": _cores_lines,
        "memory": _memory_lines,
        "kernels": _kernels_lines,
        "speed": _speed_lines,
        "models": _models_lines,
        "model": _model_lines,
    }
    result = []
    for name, make in sections.items():
        if name not in facts:
            continue
        rows = [] if facts[name] is None else make(facts[name])
        for i, (label, text) in enumerate(rows):
            result.append(f"{name if i == 0 else '':<9}{label:<{WIDE}}{text}")
        for problem in facts["problems"]:
            if problem["about"] == name:
                result.append(f"{'' if rows else name:<9}! {problem['problem']}: {problem['advice']}")
    return result


def _cpu_lines(cpu: Facts) -> list[tuple[str, str]]:
    rows = [("name", f"{cpu['name']} ({cpu['machine']})"), ("kernels", cpu["body"])]
    for other, lacking in cpu["not_used"].items():
        why = f"this CPU has no {', '.join(lacking)}" if lacking else "EDGEQ_ISA asks for another"
        rows.append(("", f"not {other}: {why}"))
    return rows


def _cores_lines(cores: Facts) -> list[tuple[str, str]]:
    def cpus(group: list[Facts]) -> str:
        listed = ", ".join("+".join(map(str, core["cpus"])) for core in group)
        return f"{len(group)} (CPUs {listed})"

    if cores["slow"]:
        rows = [("fast", cpus(cores["fast"])), ("slow", cpus(cores["slow"]))]
    else:
        rows = [("alike", cpus(cores["fast"]))]
    kept = cores["restricted_to"]
    own = "" if cores["threads"] == cores["default_threads"] else f", asked for; {cores['default_threads']} by default"
    rows.append(("threads", f"{cores['threads']}{own}" + (f", kept to CPUs {_listed(kept)}" if kept else "")))
    return rows + [("", reason) for reason in cores["reasons"]]


def _listed(cpus: list[int]) -> str:
    return ", ".join(map(str, cpus))


def _memory_lines(memory: Facts) -> list[tuple[str, str]]:
    rows = [("total", binary_size(memory["total"])), ("available", binary_size(memory["available"]))]
    if memory["group_limit"] is not None:
        group, left = binary_size(memory["group_limit"]), binary_size(memory["group_available"])
        rows.append(("group", f"a control group grants {group}, of which {left} are left"))
    return [*rows, ("pages", binary_size(memory["page_size"]))]


def _kernels_lines(kernels: Facts) -> list[tuple[str, str]]:
    ahead, cached = kernels["library"], kernels["cached"]
    library = f"{ahead['path']}, for {ahead['cpu']}" if ahead else "none: edgeq kernels build makes one"
    empty = "is empty" if ahead or not kernels["compiler"] else "is empty: first runs compile"
    found = "holds compiled kernels" if cached else empty
    folder = f"{kernels['folder']} {found}, {binary_size(kernels['free'])} free"
    others = [("", f"not {line}") for line in kernels["not_used"]]
    return [
        ("library", library),
        *others,
        ("cache", folder),
        ("compiler", kernels["no_compiler"] or "Numba is installed"),
    ]


def _speed_lines(speed: Facts) -> list[tuple[str, str]]:
    return [
        ("reading", f"{speed['read_bandwidth'] / 1e9:.1f} GB/s"),
        ("int8 dots", f"{speed['dot_peak'] / 1e9:.0f} G multiply-adds/s"),
    ]


def _models_lines(models: list[Facts]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for model in models:
        rate = f", at most {model['expected_rate']:.0f} tokens/s" if model["expected_rate"] else ""
        rows.append(("" if rows else "largest", f"{model['name']:15} needs {binary_size(model['memory'])}{rate}"))
    more = "edgeq chat NAME fetches one; edgeq models --recommended lists all"
    return [*rows, ("", more)] if rows else []


def _model_lines(model: Facts) -> list[tuple[str, str]]:
    need = model["need"]
    parts = ", ".join(f"{name} {binary_size(need[name])}" for name in ("weights", "kv", "scratch", "program"))
    rows = [
        ("file", model["file"]),
        ("memory", f"{binary_size(need['total'])} for a context of {model['context']} ({parts})"),
        ("", f"{binary_size(model['available'])} are available"),
    ]
    largest, trained = model["largest_context"], model["trained_context"]
    more = f"; the model was trained for {trained}" if largest > trained else ""
    rows.append(("context", f"at most {largest} fit{more}" if largest else "none fits"))
    if model["to_compile"]:
        rows.append(("kernels", f"{len(model['to_compile'])} or more are not there yet"))
    read = f"{binary_size(model['bytes_per_token'])} are read per token"
    expected, measured = model["expected_rate"], model.get("measured_rate")
    if expected:
        read += f": at most {expected:.1f} tokens/s from memory, {model['full_rate']:.1f} in a full context"
    rows.append(("speed", read))
    if measured:
        share = f", {100 * measured / expected:.0f} % of that" if expected else ""
        rows.append(("", f"{measured:.1f} tokens/s in a short run{share}"))
    return [*rows, ("runs here", "yes" if model["runs"] else "no")]
