"""`edgeq bundle`: what is in the folder; pip is played, as a test has no network."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
import seeing_model

import edgeq as package
from edgeq.cli import bundle
from edgeq.cli.bundle_texts import write_texts
from edgeq.container.reader import open_file
from edgeq.errors import UsageError
from edgeq.ops import catalog
from edgeq.quantize.pipeline import convert
from edgeq.runtime.kernel_state import needed
from edgeq.toolchain import cpus, image, library, prebuilt
from edgeq.toolchain.sources import sources

RUN = subprocess.run

METADATA = """\
Metadata-Version: 2.4
Name: edgeq
Version: 9.9
Requires-Dist: numba>=0.61
Requires-Dist: numpy>=2.0
Requires-Dist: llvmlite ; python_version > "3"
Requires-Dist: tokenizers>=0.20
Requires-Dist: sentencepiece
Requires-Dist: huggingface_hub>=0.25
Requires-Dist: ml_dtypes
Requires-Dist: pytest>=8; extra == 'dev'
Requires-Dist: starlette>=0.46; extra == 'serve'
Requires-Dist: pillow>=10.1; extra == 'vision'
"""
# What pip has: packages and what they need; of these a board that runs a model with tokenizer.json gets a few.
PACKAGES = {"numpy": [], "numba": ["llvmlite", "numpy"], "llvmlite": [], "tokenizers": ["huggingface-hub"]}
PACKAGES |= {"huggingface-hub": ["tqdm", "pyyaml"], "tqdm": [], "pyyaml": [], "sentencepiece": []}
PACKAGES |= {"starlette": ["anyio"], "anyio": [], "pillow": []}


@pytest.fixture(scope="module")
def converted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "tiny.eqf"
    convert(str(tiny_model), path, "F16")
    return path


@pytest.fixture
def model(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(converted, tmp_path / "a model.eqf"))


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch, tmp_path_factory):
    """Compiling a board's kernels takes a while: here nothing can, and no library is there, unless a test says so."""
    monkeypatch.setattr(library, "no_compiler", lambda: "Numba is not installed")
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path_factory.mktemp("no kernels")))


@pytest.fixture
def pip(monkeypatch):
    """Plays pip: makes the wheel that is asked for, "downloads" numpy; the list has its arguments."""
    calls: list[list[str]] = []

    def run(command, **options):
        if "pip" not in command:
            return RUN(command, **options)
        arguments = command[command.index("pip") + 1 :]
        calls.append(arguments)
        if "wheel" in arguments:
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            with zipfile.ZipFile(folder / "edgeq-9.9-py3-none-any.whl", "w") as wheel:
                wheel.writestr("edgeq-9.9.dist-info/METADATA", METADATA)
        else:
            folder = Path(arguments[arguments.index("--dest") + 1])
            waiting = [re.split("[><]", argument)[0] for argument in arguments[1:]]
            while waiting:
                package = waiting.pop()
                if package in PACKAGES:
                    stem = f"{package.replace('-', '_')}-2.4.0"
                    with zipfile.ZipFile(folder / f"{stem}-cp313-cp313-manylinux_2_28_aarch64.whl", "w") as wheel:
                        needs = "".join(f"Requires-Dist: {need}\n" for need in PACKAGES[package])
                        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.4\nName: {package}\n{needs}")
                    waiting += PACKAGES[package]
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(bundle.subprocess, "run", run)
    return calls


@pytest.fixture
def built(tmp_path, monkeypatch) -> Path:
    """A folder where libraries are looked for; it is empty."""
    folder = tmp_path / "built"
    folder.mkdir()
    monkeypatch.setenv("EDGEQ_KERNELS", str(folder))
    return folder


def rendered(cpu: str, made_from: str | None = None, names: list[str] | None = None) -> bytes:
    """A library for a CPU: with all kernels, and made from these sources, unless others are said."""
    isa = cpus.cpu(cpu).isa
    entries = dict.fromkeys(catalog.names(isa) if names is None else names, 0)
    return image.render(
        cpus.cpu(cpu).architecture, cpu, (), isa.name, made_from or sources(entries, isa), entries, b"code"
    )


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_everything_a_board_needs(edgeq, model, pip, tmp_path):
    out = tmp_path / "bundle"
    code, said, err = edgeq("bundle", model, "--for", "pi5", "-o", out)
    assert code == 0 and "Raspberry Pi 5" in said and said.endswith("run: sh bundle/check\n")
    assert err == (
        "edgeq: no kernels for cortex-a76 are here, and no Numba to compile any: "
        "such a board compiles its kernels itself, which takes a while and needs Numba there\n"
    )
    there = [
        f"{name}-2.4.0-cp313-cp313-manylinux_2_28_aarch64" for name in ("numpy", "numba", "llvmlite", "tokenizers")
    ]
    wheels = {f"wheels/{name}.whl" for name in ("edgeq-9.9-py3-none-any", *there)}
    assert names(out) == wheels | {"a model.eqf", "README.txt", "check", "install", "settings", "requirements.txt"}
    assert (out / "a model.eqf").samefile(model), "the same disk: no second copy"
    assert (
        out / "requirements.txt"
    ).read_text() == "edgeq==9.9\nllvmlite==2.4.0\nnumba==2.4.0\nnumpy==2.4.0\ntokenizers==2.4.0\n"
    download = pip[1]
    assert {"numba>=0.61", "numpy>=2.0"} < set(download) and not any("pytest>" in argument for argument in download)
    assert "manylinux_2_28_aarch64" in download and download[download.index("--python-version") + 1] == "3.13"
    readme = (out / "README.txt").read_text()
    assert "edgeq chat 'a model.eqf'" in readme and "compiles its kernels" in readme
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a model.eqf", "bundle"]


def test_with_ready_kernels_the_compiler_stays_out(edgeq, model, pip, tmp_path, built):
    """A library built from these sources is taken for the board whose CPU it is for, and no other."""
    content = rendered("cortex-a72")
    (built / "mine.eqk").write_bytes(content)
    (built / "stale.eqk").write_bytes(rendered("cortex-a76", made_from="0" * 16))
    code, _, err = edgeq("bundle", model, "--for", "pi4", "-o", tmp_path / "b")
    assert (code, err) == (0, "")
    assert (tmp_path / "b/kernels/cortex-a72.eqk").read_bytes() == content
    assert not any("numba" in argument or "llvmlite" in argument for argument in pip[1])
    assert (tmp_path / "b/requirements.txt").read_text() == "edgeq==9.9\nnumpy==2.4.0\ntokenizers==2.4.0\n"
    assert 'EDGEQ_KERNELS="$PWD/kernels"' in (tmp_path / "b/settings").read_text()
    assert "The kernels come compiled" in (tmp_path / "b/README.txt").read_text()
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "c").code == 0
    assert any("numba" in argument for argument in pip[3]), "those kernels are stale, and nothing here compiles others"


def test_any_arm_board_gets_several_libraries(edgeq, model, pip, tmp_path, built):
    for cpu in ("cortex-a72", "cortex-a76", "neoverse-n2"):
        (built / f"{cpu}.eqk").write_bytes(rendered(cpu))
    code, _, err = edgeq("bundle", model, "--for", "generic-arm64", "-o", tmp_path / "b")
    assert (code, err) == (0, "") and not any("numba" in argument for argument in pip[1])
    libraries = {f"kernels/{cpu}.eqk" for cpu in ("cortex-a72", "cortex-a76", "neoverse-n2")}
    assert libraries == {name for name in names(tmp_path / "b") if name.startswith("kernels")}
    assert "compiled for cortex-a72, cortex-a76, neoverse-n2" in (tmp_path / "b/README.txt").read_text()


def test_the_least_library_runs_on_every_board(edgeq, model, pip, tmp_path, built):
    """Without it, boards of that CPU need the compiler; without another, its boards run the least."""
    (built / "a.eqk").write_bytes(rendered("cortex-a76"))
    _, _, err = edgeq("bundle", model, "--for", "generic-arm64", "-o", tmp_path / "b")
    assert "no kernels for cortex-a72, neoverse-n2 are here" in err and "needs Numba there" in err
    assert any("numba" in argument for argument in pip[1]) and "kernels/cortex-a76.eqk" in names(tmp_path / "b")
    assert "compiles its kernels" in (tmp_path / "b/README.txt").read_text()
    (built / "b.eqk").write_bytes(rendered("cortex-a72"))
    prebuilt.found.cache_clear()
    _, _, err = edgeq("bundle", model, "--for", "generic-arm64", "-o", tmp_path / "c")
    assert "no kernels for neoverse-n2 are here" in err and "runs those for cortex-a72, which are slower" in err
    assert not any("numba" in argument for argument in pip[3])


def test_a_library_that_is_damaged_or_not_whole_is_passed_over(edgeq, model, pip, tmp_path, built):
    damaged = bytearray(rendered("cortex-a76"))
    damaged[-1] ^= 1
    (built / "a.eqk").write_bytes(damaged)
    (built / "b.eqk").write_bytes(rendered("cortex-a76", names=["norm"]))
    code, _, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b")
    assert code == 0 and "no kernels for cortex-a76 are here" in err and not (tmp_path / "b/kernels").exists()


@pytest.fixture
def compiler(monkeypatch) -> list[str]:
    """Plays the compiler: the list has the CPUs that kernels were built for, and attributes the kernels by CPU."""

    class Made(list):
        kernels: ClassVar[dict[str, list[str]]] = {}

    made = Made()

    def build(cpu, folder, names, progress):
        made.append(cpu.name)
        made.kernels[cpu.name] = names
        folder.mkdir(exist_ok=True)
        (folder / f"{cpu.name}.eqk").write_bytes(b"kernels")
        return folder / f"{cpu.name}.eqk"

    monkeypatch.setattr(library, "no_compiler", lambda: "")
    monkeypatch.setattr("edgeq.toolchain.build.build", build)
    return made


def test_kernels_are_compiled_where_that_can_be(edgeq, model, pip, tmp_path, built, compiler):
    code, _, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b")
    assert (code, compiler) == (0, ["cortex-a76"]) and "kernels for cortex-a76" in err
    assert (tmp_path / "b/kernels/cortex-a76.eqk").read_bytes() == b"kernels"
    (built / "ready.eqk").write_bytes(rendered("cortex-a72"))
    prebuilt.found.cache_clear()
    assert edgeq("bundle", model, "--for", "generic-arm64", "-o", tmp_path / "c").code == 0
    assert (
        compiler == ["cortex-a76", "cortex-a76", "neoverse-n2"] and len(list((tmp_path / "c/kernels").iterdir())) == 3
    )


def test_whatever_runs_is_bundled(edgeq, converted, tmp_path, monkeypatch):
    """What is no .eqf file is made into one in the cache, as for `edgeq run`, and named after what it was made of."""
    asked = []
    monkeypatch.setattr(bundle, "made_runnable", lambda model: (asked.append(model), converted)[1])
    code, _, _ = edgeq("bundle", "owner/m.gguf", "--for", "pi5", "--no-wheels", "-o", tmp_path / "b")
    assert (code, asked) == (0, [Path("owner/m.gguf")])
    assert (tmp_path / "b/m.eqf").read_bytes() == converted.read_bytes()
    assert "edgeq chat m.eqf" in (tmp_path / "b/README.txt").read_text()


@pytest.mark.parametrize(("source", "name"), [("a/m.gguf", "m"), ("owner/m:Q8_0", "m"), ("owner/m.5", "m.5")])
def test_a_made_file_is_named_after_its_source(source, name):
    assert bundle.named_after(Path(source)) == name


def test_only_what_the_model_needs_is_compiled(edgeq, model, pip, tmp_path, built, compiler):
    with open_file(model) as file:
        needs = needed(file, "cortex-a76")
    every = catalog.names(cpus.cpu("cortex-a76").isa)
    assert {"matmul:F16", "rope:q8_0", "execute:serve", "probe:dot-4"} < set(needs) < set(every)
    code, _, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b")
    assert (code, compiler.kernels["cortex-a76"]) == (0, needs)
    assert f"compiling {len(needs)} kernels for cortex-a76" in err
    (built / "enough.eqk").write_bytes(rendered("cortex-a76", names=needs))
    prebuilt.found.cache_clear()
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "c").code == 0
    assert compiler == ["cortex-a76"] and (tmp_path / "c/kernels/cortex-a76.eqk").read_bytes() != b"kernels"
    assert edgeq("bundle", model, "--for", "pi5", "--all-kernels", "-o", tmp_path / "d").code == 0
    assert compiler == ["cortex-a76"] * 2 and compiler.kernels["cortex-a76"] == every


ENDLESS = """
import sys, time
from edgeq.__main__ import main
from edgeq.toolchain import build, library

def endless(cpu, folder, names, progress):
    folder.mkdir()
    (folder / "some.eqk").touch()
    print("begun", flush=True)
    time.sleep(1000)

build.build, library.no_compiler = endless, lambda: ""
sys.exit(main())
"""


@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_ended_half_way_it_leaves_nothing(model, tmp_path, how, code):
    arguments = ["bundle", str(model), "--for", "pi5", "--no-wheels", "-o", str(tmp_path / "b")]
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(getattr(signal, how))
        assert process.wait(timeout=60) == code
    assert [path.name for path in tmp_path.iterdir()] == ["a model.eqf"]


def test_what_a_killed_one_leaves_is_removed_by_the_next(edgeq, model, pip, tmp_path):
    arguments = ["bundle", str(model), "--for", "pi5", "--no-wheels", "-o", str(tmp_path / "b")]
    with subprocess.Popen([sys.executable, "-c", ENDLESS, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.kill()
    assert len(list(tmp_path.iterdir())) == 2
    assert edgeq(*arguments).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a model.eqf", "b"]


def test_a_model_that_cannot_be_run_is_refused(edgeq, pip, tmp_path):
    sound = Path(__file__).resolve().parents[2] / "formats" / "malformed" / "sound.eqf"
    code, _, err = edgeq("bundle", sound, "--for", "pi5", "-o", tmp_path / "b")
    assert code == 2 and "hidden_size is None" in err and list(tmp_path.iterdir()) == [] and pip == []


def test_without_wheels(edgeq, model, pip, tmp_path):
    code, _, err = edgeq("bundle", model, "--for", "generic-arm64", "--no-wheels", "-o", tmp_path / "b")
    assert code == 0 and len(err.splitlines()) == 1 and "needs Numba there" in err
    assert names(tmp_path / "b") == {"a model.eqf", "README.txt", "check", "settings"}
    assert pip == []


def test_offline(edgeq, model, tmp_path, monkeypatch, compiler):
    said = "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for numpy>=2.0\n"
    monkeypatch.setattr(
        bundle.subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1, "", said)
    )
    code, out, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "No matching distribution found for numpy>=2.0" in err and "--no-wheels" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a model.eqf"], "nothing is left behind"
    assert compiler == [], "what fails at once fails before kernels are compiled for minutes"


def test_a_copy_on_another_disk(edgeq, model, tmp_path, monkeypatch):
    def link(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    assert edgeq("bundle", model, "--for", "pi4", "--no-wheels", "-o", tmp_path / "b").code == 0
    copy = tmp_path / "b" / "a model.eqf"
    assert copy.read_bytes() == model.read_bytes() and not copy.samefile(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--python", "3.9"], "--python is '3.9': give a version from 3.11 on"),
        (["--python", "three"], "--python is 'three'"),
        (["-o", "no/such/b"], "does not exist: make it first"),
        (["-o", "here"], "here: exists already"),
        (["--output", "here"], "here: exists already"),
        (["--out", "here"], "here: exists already"),
        (["--edgeq-wheel", "here/edgeq-1-py3-none-any.whl"], "edgeq-1-py3-none-any.whl: is no wheel: give"),
        (["--edgeq-wheel", "here/numpy-2.4-py3-none-any.whl"], "numpy-2.4-py3-none-any.whl: is no wheel of edgeq"),
        (["--edgeq-wheel", "here/edgeq-1-py3-none-any.whl", "--no-wheels"], "give one of them"),
        (["--for", "pi9"], "pi9"),
    ],
)
def test_mistakes(edgeq, model, pip, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in ("edgeq", "numpy"):
        (tmp_path / "here" / f"{name}-{'1' if name == 'edgeq' else '2.4'}-py3-none-any.whl").write_text("text")
    arguments = ["bundle", model, "--for", "pi5", "-o", "b", *options]
    code, _, err = edgeq(*arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a model.eqf", "here"]


def test_a_damaged_model_is_refused(edgeq, model, pip, tmp_path):
    with open_file(model) as file:
        place = next(iter(file.tensors.values())).offset
    data = bytearray(model.read_bytes())
    data[place] ^= 1
    model.write_bytes(data)
    code, _, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b")
    assert code == 2 and "a model.eqf" in err and "checksum" in err and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a model.eqf"] and pip == []


def test_the_model_is_checked(edgeq, tmp_path):
    (tmp_path / "m.eqf").write_bytes(b"GGUF")
    code, _, err = edgeq("bundle", tmp_path / "m.eqf", "--for", "pi5", "-o", tmp_path / "b")
    assert code == 2 and "m.eqf" in err and not (tmp_path / "b").exists()


PROGRAMS = {
    "uname": "echo ${MACHINE:-aarch64}",
    "python3": """
case "$1 $2" in
"-c "*) exec "$PYTHON" -c "import sys; sys.version_info, sys.maxsize = (${VERSION:-3, 13}), ${BITS:-2**63 - 1}; ${2}" ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*) [ -z "${BROKEN-}" ] || { echo "ERROR: $BROKEN" >&2; exit 1; }
    echo set up >>set-ups
    printf '#!/bin/sh\\necho "$@"\\n' >venv/bin/edgeq && chmod +x venv/bin/edgeq ;;
esac""",
}


@pytest.fixture
def board(tmp_path):
    """Runs a script in a folder as a board does that has little else than these programs; Python and pip are played."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in PROGRAMS.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    for name in ("dirname", "sh", "cat", "rm", "mkdir", "cp", "chmod"):
        (tools / name).symlink_to(shutil.which(name))

    def run(script, folder, **environment):
        environment |= {"PATH": str(tools), "PYTHON": sys.executable}
        return subprocess.run(["/bin/sh", script], cwd=folder, env=environment, capture_output=True, text=True)

    return run


CHECKED = "verify a model.eqf\ndoctor a model.eqf\n"


def test_check_runs_from_anywhere(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    (tmp_path / "elsewhere/b").mkdir(parents=True)
    for script, folder in (("b/check", tmp_path), ("check", tmp_path / "b"), (str(tmp_path / "b/check"), "/")):
        done = board(script, folder, CDPATH=str(tmp_path / "elsewhere"))
        assert (done.returncode, done.stdout, done.stderr) == (0, CHECKED, "")
    assert (tmp_path / "b/set-ups").read_text() == "set up\n", "it is there after the first time"


def test_check_refuses_another_machine_and_another_python(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    refused = "install: the wheels here are for 64-bit Python 3.13: install it, or edgeq bundle with another --python\n"
    for environment, message in (
        (
            {"MACHINE": "x86_64"},
            "check: this bundle is for aarch64, this machine is x86_64: make one with edgeq bundle",
        ),
        ({"VERSION": "3, 12"}, refused),
        ({"BITS": "2**31 - 1"}, refused),
    ):
        done = board("b/check", tmp_path, **environment)
        assert done.returncode == 2 and done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "b/venv").exists()


def test_what_pip_cannot_install_leaves_no_environment(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    done = board("b/check", tmp_path, BROKEN="No space left on device")
    assert (done.returncode, done.stdout) == (2, "") and not (tmp_path / "b/venv").exists()
    said = done.stderr.splitlines()
    assert said[0] == "ERROR: No space left on device" and said[1].startswith("install: pip cannot install the wheels")
    assert board("b/check", tmp_path).stdout == CHECKED


def test_what_was_interrupted_or_moved_is_set_up_again(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    program = tmp_path / "b/venv/bin/edgeq"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert board("b/check", tmp_path).stdout == CHECKED, "that environment was not finished"
    (tmp_path / "b").rename(tmp_path / "c d")
    assert board("c d/check", tmp_path).stdout == CHECKED
    assert (tmp_path / "c d/set-ups").read_text() == "set up\n" * 2
    assert (tmp_path / "c d/venv/stamp").read_text().startswith(f"{tmp_path / 'c d'} ")


def test_a_newer_bundle_over_an_old_one_is_set_up_again(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    assert board("b/check", tmp_path).stdout == CHECKED
    older = next((tmp_path / "b/wheels").glob("*.whl")).with_name("other-1.0-py3-none-any.whl")
    older.write_bytes(b"a wheel of another version")
    write_texts(tmp_path / "b", "a board", "aarch64", model.name, "3.13", [], True)
    assert board("b/check", tmp_path).stdout == CHECKED
    assert board("b/check", tmp_path).stdout == CHECKED
    assert (tmp_path / "b/set-ups").read_text() == "set up\n" * 2


def test_a_model_whose_name_looks_like_an_option(edgeq, model, pip, tmp_path, board):
    model.rename(tmp_path / "-m.eqf")
    assert edgeq("bundle", tmp_path / "-m.eqf", "--for", "pi5", "-o", tmp_path / "b").code == 0
    assert board("b/check", tmp_path).stdout == "verify ./-m.eqf\ndoctor ./-m.eqf\n"
    assert "edgeq chat ./-m.eqf\n" in (tmp_path / "b/README.txt").read_text()


def test_one_that_serves(edgeq, model, pip, tmp_path, board):
    assert edgeq("bundle", model, "--for", "pi5", "--serve", "-o", tmp_path / "b").code == 0
    pins = (tmp_path / "b/requirements.txt").read_text()
    assert "starlette==2.4.0\n" in pins and "anyio==2.4.0\n" in pins and "pytest" not in pins
    assert board("b/serve", tmp_path).stdout == "serve a model.eqf\n"
    assert "sh serve" in (tmp_path / "b/README.txt").read_text()
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "c").code == 0
    assert "starlette" not in (tmp_path / "c/requirements.txt").read_text() and not (tmp_path / "c/serve").exists()


def test_a_model_that_sees_gets_what_reads_images(edgeq, model, pip, tmp_path):
    convert(seeing_model.write(tmp_path / "m"), tmp_path / "m.eqf", "F32")
    for source, extras, pinned in (
        (tmp_path / "m.eqf", [], {"pillow"}),
        (tmp_path / "m.eqf", ["--serve"], {"pillow", "starlette", "anyio"}),
        (model, [], set()),
    ):
        assert edgeq("bundle", source, "--for", "pi5", "-o", tmp_path / "b", *extras).code == 0
        pins = {line.split("==")[0] for line in (tmp_path / "b/requirements.txt").read_text().splitlines()}
        assert pins & {"pillow", "starlette", "anyio"} == pinned
        shutil.rmtree(tmp_path / "b")


def installed(site: Path) -> None:
    """edgeq 9.9 as pip leaves it: the files of its wheel, and what pip adds."""
    package_files = {"edgeq/__init__.py": "", "edgeq/cli/x.py": "x = 1\n"}
    left_out = ["edgeq/__pycache__/x.pyc", "edgeq/kernels/prebuilt/x86-64-v3.eqk", "../bin/edgeq"]
    info = "edgeq-9.9.dist-info"
    left_out += [f"{info}/{name}" for name in ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")]
    files = {**package_files, f"{info}/METADATA": METADATA, f"{info}/WHEEL": "Tag: py3-none-any\n"}
    for name, text in {**files, **dict.fromkeys(left_out, "pip's")}.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    (site / info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, *left_out]))


def test_an_installed_edgeq_is_packed_again(edgeq, model, pip, tmp_path, monkeypatch):
    site = tmp_path / "venv" / "site"
    site.mkdir(parents=True)
    installed(site)
    monkeypatch.setattr(package, "__file__", str(site / "edgeq/__init__.py"))
    assert edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "b").code == 0
    assert ["download" in arguments for arguments in pip] == [True], "no wheel was built"
    with zipfile.ZipFile(tmp_path / "b/wheels/edgeq-9.9-py3-none-any.whl") as wheel:
        contents = {name: wheel.read(name) for name in wheel.namelist()}
    info = "edgeq-9.9.dist-info"
    record = contents.pop(f"{info}/RECORD").decode().splitlines()
    assert list(contents) == ["edgeq/__init__.py", "edgeq/cli/x.py", f"{info}/METADATA", f"{info}/WHEEL"]
    assert contents["edgeq/cli/x.py"] == b"x = 1\n"
    assert record[0] == "edgeq/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0"
    assert [line.split(",")[0] for line in record] == [*contents, f"{info}/RECORD"] and record[-1].endswith("RECORD,,")
    (site / "edgeq/cli/x.py").unlink()
    code, _, err = edgeq("bundle", model, "--for", "pi5", "-o", tmp_path / "c")
    assert code == 2 and err.endswith("give its --edgeq-wheel FILE\n") and not (tmp_path / "c").exists()


def test_a_package_that_a_board_lacks_is_one_line(tiny_model, tmp_path):
    code = "import sys; sys.modules['ml_dtypes'] = None; from edgeq.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "convert", str(tiny_model), "-o", str(tmp_path / "m.eqf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    said = "edgeq: this needs the Python package ml_dtypes, which is not installed here: pip install ml_dtypes\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["check", "venv"])
def test_a_model_named_like_a_part_of_the_bundle_is_left_alone(model, tmp_path, name):
    named = model.rename(tmp_path / name)
    before = named.read_bytes()
    with pytest.raises(UsageError, match="rename the model"):
        bundle.make(named, bundle.BOARDS["pi5"], tmp_path / "out", None)
    assert named.read_bytes() == before and not (tmp_path / "out").exists()
