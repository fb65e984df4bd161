"""Who may import whom, and what must not be imported early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq

PACKAGE = Path(edgeq.__file__).parent

# Layer -> the layers that it may import. Everyone may import edgeq itself and the modules in COMMON.
ALLOWED: dict[str, set[str]] = {
    "simd": set(),
    "blocks": set(),
    "kernels": {"simd", "blocks"},
    "container": {"blocks"},
    "checkpoints": {"blocks"},
    "models": set(),
    "quantize": {"blocks", "container", "checkpoints", "models", "kernels"},
    "runtime": {"blocks", "container", "models", "kernels"},
    "text": set(),
    "decode": {"text"},
    "arguments": {"decode"},
    "gguf": {"blocks", "container", "decode", "kernels", "models", "text"},
    "embedding": {"container", "runtime", "text"},
    "recommended": set(),
    "model_names": {"recommended"},
    "model_sources": {"checkpoints", "container", "conversion", "gguf"},
    "model_cache": {"container", "model_names", "model_sources", "quantize"},
    "timings": set(),
    "prompt_cache": {"runtime", "timings"},
    "floor": set(),
    "answer": {"decode", "timings"},
    "shared_session": {"answer", "decode", "floor", "prompt_cache", "runtime", "timings"},
    "model": {
        "answer",
        "arguments",
        "container",
        "decode",
        "embedding",
        "model_cache",
        "prompt_cache",
        "runtime",
        "shared_session",
        "text",
        "timings",
    },
    "conversion": {"checkpoints", "container", "gguf", "models", "quantize", "text"},
    "cli": {
        "answer",
        "arguments",
        "checkpoints",
        "container",
        "conversion",
        "decode",
        "embedding",
        "gguf",
        "kernels",
        "model",
        "model_cache",
        "models",
        "quantize",
        "recommended",
        "runtime",
        "text",
        "timings",
    },
    "__init__": {"answer", "conversion", "decode", "model", "timings"},
    "__main__": {"cli"},
}
COMMON = {"", "cgroups", "errors", "environment", "input", "output"}

# The parts of kernels/ that the layers above use: none of them imports Numba before it has to compile.
KERNELS_IN_USE = {"library", "layout", "encode_api"}
KERNELS_VERB = {"build", "catalog", "library", "prebuilt"}  # what the verb about kernels shows and makes


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = layer(path)
    if own in COMMON:
        allowed = COMMON
    else:
        assert own in ALLOWED, f"{own} is a new layer: say in ALLOWED what it may import"
        allowed = ALLOWED[own] | COMMON | {own}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "edgeq":
            continue
        target = parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""
        if len(parts) > 1 and (PACKAGE / f"{parts[1]}.py").is_file():
            target = parts[1]
        assert target in allowed, f"{own} must not import {name}"
        if target == "kernels" and own != "kernels":
            use = KERNELS_VERB if path.parts[-2:] == ("cli", "kernels.py") else KERNELS_IN_USE
            assert parts[2] in use, f"{own} must not import {name}: kernels come from the library, by name"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_kernels_know_numba_and_only_environment_reads_the_environment(path):
    names = imports(path)
    if layer(path) not in ("simd", "kernels"):
        assert not {name for name in names if name.split(".")[0] in ("numba", "llvmlite")}
    if layer(path) != "environment":
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
    }


def test_a_chat_without_a_terminal_needs_no_editor():
    code = "import io, sys; sys.stdin = io.StringIO(); from edgeq.cli.chat_input import reader; reader()"
    assert "prompt_toolkit" not in modules_after(code)


def test_opening_a_file_needs_no_numba():
    code = "import edgeq.model, edgeq.runtime.session, edgeq.quantize.pipeline"
    assert "numba" not in modules_after(code)
