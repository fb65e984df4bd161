"""Who may import whom, and what must not be imported early."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import edgeq

PACKAGE = Path(edgeq.__file__).parent

# What all may import, from the bottom up: each of these only what is before it.
COMMON = ("version", "printable", "errors", "system")

# Layer -> the layers that it may import beside these, from the bottom up: only what is before it.
ALLOWED: dict[str, set[str]] = {
    "vision": set(),
    "simd": set(),
    "blocks": set(),
    "toolchain": {"blocks", "simd"},
    "kernels": {"blocks", "simd", "toolchain"},
    "container": {"blocks"},
    "checkpoints": {"blocks"},
    "graph": {"blocks", "container", "kernels", "simd", "toolchain"},
    "ops": {"blocks", "graph", "kernels", "simd"},
    "models": {"ops", "vision"},
    "text": {"vision"},
    "talk": {"text"},
    "decode": {"text"},
    "runtime": {"blocks", "container", "graph", "kernels", "models", "ops", "toolchain"},
    "drift": {"container", "runtime"},
    "quantize": {
        "blocks",
        "checkpoints",
        "container",
        "drift",
        "graph",
        "kernels",
        "models",
        "ops",
        "runtime",
        "vision",
    },
    "gguf": {"blocks", "container", "decode", "kernels", "models", "text", "toolchain"},
    "adapters": {"blocks", "checkpoints", "container", "gguf", "models", "ops", "runtime"},
    "conversion": {"adapters", "blocks", "checkpoints", "container", "gguf", "models", "quantize", "text"},
    "qat": {"blocks", "checkpoints", "container", "conversion", "kernels", "models", "quantize"},
    "store": {"checkpoints", "container", "conversion", "gguf", "quantize"},
    "engine": {
        "adapters",
        "blocks",
        "container",
        "decode",
        "drift",
        "graph",
        "models",
        "runtime",
        "talk",
        "text",
        "vision",
    },
    "loading": {"adapters", "store", "container", "engine", "runtime", "text"},
    "__init__": {"conversion", "decode", "drift", "engine", "loading", "quantize"},
    "evaluate": {"__init__", "conversion", "engine", "loading", "quantize", "runtime", "text"},
    "serve": {"decode", "engine", "talk", "text", "vision"},
    "ray": {"store", "engine", "loading", "serve"},
    "cli": {
        "__init__",
        "adapters",
        "store",
        "checkpoints",
        "container",
        "conversion",
        "decode",
        "drift",
        "engine",
        "evaluate",
        "gguf",
        "kernels",
        "loading",
        "models",
        "ops",
        "quantize",
        "runtime",
        "serve",
        "talk",
        "text",
        "toolchain",
        "vision",
    },
    "__main__": {"cli"},
}

# The parts of kernels/ and toolchain/ that the layers above use: none imports Numba before it has to compile.
IN_USE = {"kernels": {"argument_blocks", "encode_api", "mend_api", "layout"}, "toolchain": {"compilers", "library"}}
IN_VERB = {"kernels": set(), "toolchain": {"build", "cpus", "library", "prebuilt"}}  # the verb about kernels


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in modules()}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of what a file imports: at its top, within functions, for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_modules(path: Path) -> set[str]:
    """The modules of edgeq among them; a name that is none is of the module before it."""
    found = {name for name in imports(path) if name.split(".")[0] == "edgeq"}
    return {name if name in NAMES else name.rpartition(".")[0] for name in found}


def test_layers_are_in_order():
    below: set[str] = set()
    for own, allowed in ALLOWED.items():
        assert allowed <= below, f"{own} must not import {', '.join(sorted(allowed - below))}: it stands below"
        below.add(own)
    assert below | {*COMMON} == {layer(path) for path in modules()}, "ALLOWED has what is there, and no more"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = layer(path)
    if own in COMMON:
        allowed = {*COMMON[: COMMON.index(own)], own}
    else:
        assert own in ALLOWED, f"{own} is a new layer: say in ALLOWED what it may import"
        allowed = {*ALLOWED[own], *COMMON, own}
    for name in imported_modules(path):
        target = layer(NAMES[name])
        assert target in allowed, f"{own} must not import {name}"
        if target in IN_USE and own not in (*IN_USE, "ops"):
            use = (IN_VERB if path.parts[-2:] == ("cli", "kernels.py") else IN_USE)[target]
            assert NAMES[name].stem in use, f"{own} must not import {name}: kernels come from the library, by name"


def test_there_are_no_circles():
    graph = {name: imported_modules(path) - {name} for name, path in NAMES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_a_file_name_means_one_thing():
    """Verbs and packages apart, which are called what they are."""
    stems = Counter(path.stem for path in modules() if path.stem != "__init__" and layer(path) != "cli")
    twice = {stem for stem, times in stems.items() if times > 1}
    assert not twice, "name files apart that are about different things"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_kernels_know_numba_and_only_environment_reads_the_environment(path):
    names = imports(path)
    if layer(path) not in ("simd", "toolchain", "kernels"):
        assert not {name for name in names if name.split(".")[0] in ("numba", "llvmlite")}
    if path.stem != "environment":
        source = path.read_text(encoding="utf-8")
        assert "os.environ" not in source and "getenv" not in source


def modules_after(code: str) -> set[str]:
    """Top-level names of the modules that are loaded after some code has run in a fresh interpreter."""
    report = "import sys; sys.stderr.write(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import edgeq",
        "from edgeq.cli import main; main(['--help'])",
        "from edgeq.cli import main; main(['run', '--help'])",
        "from edgeq.cli import main; main(['chat', '--help'])",
        "from edgeq.cli import main; main(['serve', '--help'])",
        "import edgeq.text.tokenizer, edgeq.text.chat",
    ],
)
def test_numpy_and_numba_are_not_imported_early(code):
    loaded = modules_after(code)
    assert "edgeq" in loaded
    assert not loaded & {
        "numpy",
        "numba",
        "llvmlite",
        "tokenizers",
        "sentencepiece",
        "jinja2",
        "rich",
        "prompt_toolkit",
        "starlette",
        "uvicorn",
        "msgspec",
        "llguidance",
    }


def test_the_list_of_verbs_imports_none_of_them():
    code = "import sys; from edgeq.cli import main; main(['--help'])"
    verbs = "assert not [name for name in sys.modules if name.startswith('edgeq.cli.')]"
    assert not modules_after(f"{code}; {verbs}") & {"psutil", "statistics", "email", "hashlib"}


def test_a_chat_without_a_terminal_needs_no_editor():
    code = "import io, sys; sys.stdin = io.StringIO(); from edgeq.cli.chat_input import reader; reader()"
    assert "prompt_toolkit" not in modules_after(code)


def test_torch_is_for_training_alone():
    for path in modules():
        if layer(path) != "qat":
            assert not {name for name in imports(path) if name.split(".")[0] in ("torch", "transformers")}, path


def test_ray_is_for_clusters_alone():
    for path in modules():
        if layer(path) != "ray":
            assert not {name for name in imports(path) if name.split(".")[0] == "ray"}, path


def test_opening_a_file_needs_no_numba():
    code = "import edgeq.loading, edgeq.runtime.session, edgeq.quantize.pipeline"
    assert "numba" not in modules_after(code)
