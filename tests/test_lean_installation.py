"""An installation without the compiler and what converting needs: it runs models, and says what it lacks."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edgeq.container.reader import open_file
from edgeq.gguf.exporter import export_gguf
from edgeq.quantize.pipeline import convert
from edgeq.runtime.kernel_state import needed
from edgeq.toolchain import build, cpus, image

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEAN = [Requirement(text) for text in PROJECT["dependency-groups"]["run"]]
LEFT_OUT = {"numba", "ml_dtypes", "huggingface-hub"}


def names(requirements: list[str]) -> set[str]:
    return {Requirement(text).name for text in requirements}


def test_what_is_left_out_comes_as_extras():
    """In the same versions; and nothing else is left out."""
    extras = PROJECT["project"]["optional-dependencies"]
    left_out = {need for extra in ("compile", "convert", "hub") for need in extras[extra]}
    assert names([*left_out]) == LEFT_OUT and left_out <= set(PROJECT["project"]["dependencies"])
    assert names(PROJECT["project"]["dependencies"]) - {one.name for one in LEAN} <= LEFT_OUT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of the group `run`, and no others."""
    folder = tmp_path_factory.mktemp("site")
    for one in LEAN:
        if one.marker is not None and not one.marker.evaluate():
            continue
        try:
            files = distribution(one.name).files or []
        except PackageNotFoundError:
            pytest.skip(f"{one.name} of the dependency group `run` is not installed")
        for top in {file.parts[0] for file in files if file.parts[0] != ".." and "__pycache__" not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(distribution(one.name).locate_file(top)))
    return folder


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as .eqf and GGUF, a chat template, and kernels built ahead of time."""
    if not image.supported():
        pytest.skip("this system cannot run kernel files")
    folder = tmp_path_factory.mktemp("lean")
    convert(str(tiny_model), folder / "tiny.eqf", "Q4_K_M")
    convert(str(tiny_model), folder / "f16.eqf", "F16")
    export_gguf(folder / "f16.eqf", folder / "tiny.gguf")
    (folder / "template").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    cpu = cpus.this_cpu()
    with open_file(folder / "tiny.eqf") as file, open_file(folder / "f16.eqf") as other:
        every = [*needed(file, cpu.name), *needed(other, cpu.name)]
    names = [name for name in every if not name.endswith(("f32", "q8_0")) and not name.startswith("probe")]
    build.build(cpu, folder / "kernels", [*names, "rearrange:to-panels"])
    return folder


def run(site: Path, folder: Path, *arguments: str, stdin: str = "", **variables: str) -> tuple[int, str, str]:
    environment = {**os.environ, "EDGEQ_KERNELS": str(folder / "kernels"), "EDGEQ_CACHE": str(folder / "cache")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), **variables}
    command = [sys.executable, "-S", "-m", "edgeq", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "tiny.eqf", "Once upon a time", "-n", "8", "--seed", "1"],
        ["run", "tiny.gguf", "Once upon a time", "-n", "8", "--seed", "1"],
        ["chat", "tiny.eqf", "--template", "template", "-n", "8", "--seed", "1"],
        ["embed", "tiny.eqf", "Once upon a time"],
        ["import", "tiny.gguf", "-o", "imported.eqf"],
        ["show", "tiny.eqf"],
        ["verify", "tiny.eqf"],
        ["doctor", "tiny.eqf", "--no-speed"],
        ["kernels", "list"],
        ["version"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_runs(site: Path, folder: Path, arguments: list[str]):
    code, out, err = run(site, folder, *arguments, stdin="Once upon a time\n" if arguments[0] == "chat" else "")
    assert code == 0 and out and "compiling" not in err and "not installed here" not in err, err


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["convert", str(ROOT / "tools" / "tiny_model"), "-o", "m.eqf"], "ml_dtypes"),
        (["run", "some/model", "Once"], "(huggingface_hub|ml_dtypes)"),
        (["run", "tiny.eqf", "Once", "-n", "1"], "'numba>="),
        (["kernels", "build"], "'numba>="),
    ],
    ids=["convert", "hub", "run", "build"],
)
def test_what_is_lacking_is_named_in_a_line(
    site: Path, folder: Path, tmp_path: Path, arguments: list[str], package: str
):
    code, out, err = run(site, folder, *arguments, EDGEQ_KERNELS=str(tmp_path), EDGEQ_CACHE=str(tmp_path))
    assert (code, out, len(err.splitlines())) == (2, "", 1) and re.search(f"pip install {package}", err)
