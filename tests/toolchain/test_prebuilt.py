"""Libraries built ahead of time: a process that has one needs no compiler; a wrong one is refused, never run."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.errors import KernelError
from edgeq.quantize.pipeline import convert
from edgeq.simd import isa as isa_table
from edgeq.toolchain import build, cache, cpus, image, library, prebuilt, worker
from edgeq.toolchain.sources import sources

pytestmark = pytest.mark.skipif(not image.supported(), reason="this system cannot run kernel files")

RUN = """
import sys
if sys.argv[3] == "alone":
    sys.modules["numba"] = sys.modules["llvmlite"] = None
import edgeq
lines = []
with edgeq.load(sys.argv[1], threads=2, context=128, announce=lines.append) as model:
    text = "".join(model.generate(sys.argv[2], 24, temperature=0))
    kernels = model.session.plan.kernels
loaded = sorted({name.split(".")[0] for name, module in sys.modules.items() if module})
import json
print(json.dumps({"text": text, "lines": lines, "kernels": sorted(set(kernels)), "loaded": loaded}))
"""


def run(model: Path, environment: dict[str, str], how: str = "") -> dict:
    command = [sys.executable, "-c", RUN, str(model), "Once upon a time", how]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.eqf"
    convert(str(tiny_model), path, "Q4_K_M")
    return path


@pytest.fixture(scope="module")
def compiled(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the model says with kernels compiled here."""
    return run(model, {"EDGEQ_KERNELS": str(tmp_path_factory.mktemp("none"))})


@pytest.fixture(scope="module")
def built(compiled: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the kernels of that model, for a CPU like this one."""
    names = [*compiled["kernels"], "execute:publish", "execute:lead", "execute:serve", "rearrange:to-panels"]
    return build.build(cpus.this_cpu(), tmp_path_factory.mktemp("built"), names)


@pytest.fixture
def copy(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the library, where this process looks for libraries."""
    path = tmp_path / "kernels" / built.name
    path.parent.mkdir()
    path.write_bytes(built.read_bytes())
    monkeypatch.setenv("EDGEQ_KERNELS", str(path.parent))
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_loaded", {})
    prebuilt.found.cache_clear()
    return path


def rendered(header: image.Header, code: bytes, **changes: object) -> bytes:
    values = {name: getattr(header, name) for name in ("architecture", "cpu", "needs", "isa", "sources", "kernels")}
    values |= changes
    if {"isa", "kernels"} & changes.keys():  # made of other sources, then
        body = next(row for row in isa_table.TABLE if row.name == values["isa"])
        values["sources"] = sources(values["kernels"], body)
    return image.render(**values, code=code)


def test_a_process_without_numba_says_the_same(model: Path, built: Path, compiled: dict, tmp_path: Path):
    environment = {"EDGEQ_KERNELS": str(built.parent), "EDGEQ_CACHE": str(tmp_path)}
    alone = run(model, environment, "alone")
    assert alone["text"] == compiled["text"] and len(alone["text"]) > 20
    assert alone["lines"] == [] and list(tmp_path.iterdir()) == []
    assert not set(alone["loaded"]) & {"numba", "llvmlite"}
    here = run(model, environment)
    assert here["text"] == compiled["text"] and not set(here["loaded"]) & {"numba", "llvmlite"}


def test_a_first_token_takes_little(model: Path, built: Path, tmp_path: Path):
    """`edgeq run` with a library loads none of the large packages, and little else: it starts on a slow board too."""
    environment = {**os.environ, "EDGEQ_KERNELS": str(built.parent), "EDGEQ_CACHE": str(tmp_path)}
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "edgeq",
        "run",
        str(model),
        "Once upon a time",
        "--raw",
        "-n",
        "1",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, "-t", "1"], env=environment, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    heavy = {"numba", "llvmlite", "scipy", "transformers", "rich", "huggingface_hub", "jinja2", "safetensors"}
    assert "numpy" in imported and not imported & (heavy | {"ml_dtypes", "sentencepiece", "multiprocessing"})
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 1.5, "of CPU time; 0.35 s were measured"


def test_cached_kernels_need_no_llvm_either(model: Path, compiled: dict, tmp_path: Path):
    again = run(model, {"EDGEQ_KERNELS": str(tmp_path)})
    assert again["text"] == compiled["text"] and not set(again["loaded"]) & {"numba", "llvmlite"}


def test_without_numba_and_without_a_library_one_line_says_what_to_do(model: Path, tmp_path: Path):
    code = "import sys; sys.modules['numba'] = None; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "EDGEQ_KERNELS": str(tmp_path), "EDGEQ_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code, "run", str(model), "Hello", "--raw", "-n", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "Numba is not installed: pip install 'numba>=" in done.stderr


def test_what_is_found(copy: Path):
    best = prebuilt.best()
    assert best is not None and best.path == copy and prebuilt.problems() == []
    assert library.built_ahead() == ((copy, cpus.this_cpu().name), [], [])
    assert library.missing(["norm", "execute:lead"]) == []
    assert library.kernel("norm").address == best.address("norm")
    assert best.address("encode:Q4_K") is None


def test_a_damaged_library_is_not_run(copy: Path):
    data = bytearray(copy.read_bytes())
    data[-100] ^= 1
    copy.write_bytes(data)
    assert library.missing(["norm"]) == ["norm"]
    assert prebuilt.problems() == [f"{copy}: is damaged, its checksum is wrong: build it again"]
    assert library.built_ahead() == (None, prebuilt.problems(), [])
    lines: list[str] = []
    library.prepare(["execute:publish"], lines.append)
    assert lines[0] == prebuilt.problems()[0] and lines[1].startswith("compiling 1 kernel for")


def test_a_stale_library_is_not_run(copy: Path):
    header, code = image.read(copy)
    copy.write_bytes(rendered(header, code, sources="0" * 16))
    assert prebuilt.best() is None
    assert prebuilt.problems() == [
        f"{copy}: was built from other kernel sources: build it again (`edgeq kernels build`) or remove it"
    ]


def test_a_library_for_another_cpu_is_passed_over(copy: Path, monkeypatch: pytest.MonkeyPatch):
    header, code = image.read(copy)
    copy.write_bytes(rendered(header, code, needs=("avx1024",)))
    copy.with_name("other.eqk").write_bytes(rendered(header, code, architecture="riscv64"))
    assert prebuilt.best() is None and prebuilt.problems() == []
    assert sorted(one.problem for one in prebuilt.found((copy.parent,))) == ["for riscv64", "this CPU has no avx1024"]
    assert prebuilt.passed_over() == ["other.eqk: for riscv64", f"{copy.name}: this CPU has no avx1024"]
    monkeypatch.setattr(library, "no_compiler", lambda: "Numba is not installed")
    with pytest.raises(KernelError, match=r"Numba is not installed; .*: this CPU has no avx1024.*: pip install 'n"):
        library.kernel("norm:none")


def test_a_file_that_is_no_library(copy: Path):
    copy.write_bytes(b"not a library")
    assert prebuilt.best() is None
    assert prebuilt.problems() == [f"{copy}: is no library of kernels, or is cut short: build it again"]


def test_the_best_of_several(copy: Path, monkeypatch: pytest.MonkeyPatch):
    header, code = image.read(copy)
    copy.with_name("a.eqk").write_bytes(rendered(header, code, isa="portable", needs=()))
    copy.with_name("z.eqk").write_bytes(rendered(header, code, needs=header.needs[:2]))
    best = prebuilt.best()
    assert best is not None and best.path == copy
    monkeypatch.setenv("EDGEQ_ISA", "portable")
    best = prebuilt.best()
    assert best is not None and best.path.name == "a.eqk"


def test_without_numba_a_lesser_body_runs(copy: Path, monkeypatch: pytest.MonkeyPatch):
    """With Numba, the best body is worth a compilation."""
    header, code = image.read(copy)
    copy.write_bytes(rendered(header, code, isa="portable", needs=()))
    prebuilt.found.cache_clear()
    assert library.chosen_isa() == isa_table.choose() and isa_table.choose().name != "portable"
    assert library.missing(["norm"]) == ["norm"]
    monkeypatch.setattr(library, "no_compiler", lambda: "Numba is not installed")
    assert library.chosen_isa().name == "portable"
    assert library.missing(["norm"]) == []


def test_only_a_sound_library_with_what_is_needed_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is put into a bundle is checked before: on the board nothing may be there to compile what it lacks."""
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path))
    names = ["norm", "copy_rows"]

    def found(kernels: list[str], made_from: str = "", flip: int = 0) -> Path | None:
        entries, made_from = dict.fromkeys(kernels, 0), made_from or sources(kernels, cpus.cpu("cortex-a76").isa)
        data = bytearray(image.render("aarch64", "cortex-a76", (), "neon_dotprod", made_from, entries, b"code"))
        data[-1] ^= flip
        (tmp_path / "one.eqk").write_bytes(data)
        prebuilt.found.cache_clear()
        return prebuilt.built_for("cortex-a76", names)

    assert found(names) == found([*names, "silu_mul"]) == tmp_path / "one.eqk"
    assert prebuilt.built_for("cortex-a72", names) is None
    assert found(names[1:]) is None and found(names, "0" * 16) is None and found(names, flip=1) is None


def test_what_one_library_lacks_another_one_has(copy: Path, monkeypatch: pytest.MonkeyPatch):
    """A package brings the kernels of common models; a library of all may lie in the user's folder."""
    header, code = image.read(copy)
    copy.with_name("a.eqk").write_bytes(rendered(header, code, kernels={"norm": header.kernels["norm"]}))
    copy.with_name("b.eqk").write_bytes(rendered(header, code, isa="portable", needs=()))
    prebuilt.found.cache_clear()
    best = prebuilt.best()
    assert best is not None and best.path.name == "a.eqk" and len(best.header.kernels) == 1
    monkeypatch.setattr(library, "no_compiler", lambda: "Numba is not installed")
    assert library.missing(["norm", "execute:lead"]) == []
    damaged = bytearray(copy.read_bytes())
    damaged[-1] ^= 1
    copy.write_bytes(damaged)
    monkeypatch.setattr(library, "_loaded", {})
    prebuilt.found.cache_clear()
    assert library.missing(["norm", "execute:lead"]) == ["execute:lead"]
    with pytest.raises(KernelError, match=r"kernel execute:lead must be compiled .* and Numba is not installed"):
        library.kernel("execute:lead")


def test_a_build_that_was_ended_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    cpu, names = cpus.cpu("cortex-a72"), ["copy_rows", "execute:serve", "execute:publish", "execute:lead"]
    whole = build.build(cpu, tmp_path / "whole", names).read_bytes()
    paths = {name: cache.path(name, cpu.isa, cpu) for name in names}
    objects = {name: cache.kept_object(name, cpu) for name in names}
    assert cache.folder("norm", cpu.isa) != cache.folder("norm", cpu.isa, cpu)
    paths["execute:publish"].unlink()
    paths["execute:serve"].write_bytes(paths["execute:serve"].read_bytes()[:-1])
    asked, steps = [], []

    def compile_all(jobs, count):
        asked.append([job.name for job in jobs])
        return ((job, objects[job.name]) for job in jobs)

    def end(done, total):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(worker, "compile_all", compile_all)
    with pytest.raises(KeyboardInterrupt):
        build.build(cpu, tmp_path / "again", names, end)
    assert not list((tmp_path / "again").iterdir())
    again = build.build(cpu, tmp_path / "again", names, lambda *step: steps.append(step))
    assert asked == [["execute:serve", "execute:publish"], ["execute:publish"]]
    assert steps == [(3, 4), (4, 4)] and again.read_bytes() == whole


def test_build_needs_numba(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(build, "no_compiler", lambda: "Numba is not installed")
    with pytest.raises(KernelError, match="cannot be built: Numba is not installed: pip install 'numba>="):
        build.build(cpus.CPUS[0], tmp_path, ["copy_rows"])


def test_a_library_for_another_architecture(tmp_path: Path):
    cpu, names = cpus.cpu("cortex-a72"), ["copy_rows", "execute:serve"]
    path = build.build(cpu, tmp_path, names)
    header, _ = image.read(path)
    assert (header.architecture, header.isa, header.needs) == ("aarch64", "neon", ("neon",))
    assert header.sources == sources(names, cpu.isa) and list(header.kernels) == names
    assert header.offset == 65536
