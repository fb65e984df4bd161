"""What CONTRIBUTING.md says of adding things is true: a toy of each, added to a copy of edgeq, works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeq
from edgeq.simd.isa import choose

PACKAGE = Path(edgeq.__file__).parent
REPOSITORY = PACKAGE.parent
PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


class Copy:
    """A copy of the package that things are added to, and which of its files that touches."""

    def __init__(self, folder: Path):
        self.package = folder / "edgeq"
        shutil.copytree(PACKAGE, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.touched: list[str] = []

    def file(self, name: str, text: str) -> None:
        """Add a file."""
        assert not (self.package / name).exists()
        (self.package / name).write_text(text, encoding="utf-8")
        self.touched.append(name)

    def row(self, name: str, before: str, row: str) -> None:
        """Add rows to a table: behind the only line that begins with `before`."""
        path = self.package / name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        at = [i for i, line in enumerate(lines) if line.startswith(before)]
        assert len(at) == 1, f"{name}: {before!r} begins {len(at)} lines"
        lines.insert(at[0] + 1, row)
        path.write_text("".join(lines), encoding="utf-8")
        if name not in self.touched:
            self.touched.append(name)

    def run(self, code: str) -> None:
        """Python with this copy."""
        head = "import numpy as np\nimport sys\n"
        command = [sys.executable, "-c", head + code]
        result = subprocess.run(command, cwd=self.package.parent, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def listed(what: str) -> set[str]:
    """The files of the package that the page names under `**what.**`."""
    section = re.search(rf"^\*\*{what}\.\*\*(.*?)(?=^\*\*|^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, f"CONTRIBUTING.md has no paragraph {what!r}"
    return {name.removeprefix("edgeq/") for name in re.findall(r"`(edgeq/[\w/.]+\.py)`", section[1])}


def test_files_that_the_page_names_are_there():
    names = set(re.findall(r"`((?:edgeq|tests|tools|formats|bench)/[\w/.-]+)`", PAGE))
    generic = {name for name in names if re.search(r"[A-Z]{2,}\.py$", name)}
    missing = [name for name in names - generic if not (REPOSITORY / name).exists()]
    assert names and not missing


OP = '''"""Turn every sign."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from edgeq.graph.lowering import Lowering
from edgeq.graph.op import Op, Variants
from edgeq.graph.value import Value


class Args(NamedTuple):
    x: int
    x_stride: int
    width: int
    out: int
    out_stride: int
    tokens: int


@dataclass(frozen=True)
class Toy(Op):
    """-x."""

    x: Value
    kernels: ClassVar[Variants] = {"toy": lambda isa: [""]}

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.x,)

    def lower(self, low: Lowering, out: Value) -> None:
        x, y = low.buffer(self.x), low.buffer(out)
        args = Args(x.address, x.stride, out.width, y.address, y.stride, low.count(out))
        low.tape.add("toy", args, [x], [y])


def make(variant, isa):
    from edgeq.simd.argument_words import words_of
    from edgeq.simd.memory import load_i64
    from edgeq.simd.vector import load_f32x16, neg, store_f32x16

    arguments = words_of(Args)

    def kernel(args, thread, n_threads):
        a = arguments(args)
        tokens = load_i64(a.tokens)
        for token in range(tokens * thread // n_threads, tokens * (thread + 1) // n_threads):
            for i in range(0, a.width, 16):
                value = load_f32x16(a.x + token * a.x_stride + 4 * i)
                store_f32x16(a.out + token * a.out_stride + 4 * i, neg(value))

    return kernel
'''

RUN_OP = """
from edgeq.container.reader import open_file
from edgeq.models import llama
from edgeq.ops import catalog
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session
from edgeq.simd.isa import choose

assert "toy" in catalog.names(choose())
convert(sys.argv[1], "tiny.eqf", "F32")
embedded = lambda g: g.embedding("token_embd.weight")
with open_file("tiny.eqf") as file:
    results = []
    for values in (lambda g: embedded(g), lambda g: g.toy(g.toy(g.toy(embedded(g))))):
        llama.Model.graph = lambda self, g, stages, values=values: g.outputs(values(g))
        with Session(file, context=16, threads=2) as session:
            results.append(session.eval([5, 6, 7], all_logits=True))
assert results[0].any() and np.array_equal(results[0], -results[1])
"""


def test_an_operation(copy: Copy):
    copy.file("ops/toy.py", OP)
    copy.row("ops/__init__.py", "from edgeq.ops.silu_mul import", "from edgeq.ops.toy import Toy\n")
    copy.row("ops/__init__.py", "    silu_mul = says(SiluMul)", "    toy = says(Toy)\n")
    copy.run(RUN_OP.replace("sys.argv[1]", repr(str(REPOSITORY / "tools" / "tiny_model"))))
    assert {name.replace("toy", "OP") for name in copy.touched} == listed("An operation")


BODY = '''"""Products as the best body here makes them."""

from edgeq.simd.body import Body
from edgeq.simd.isa import choose

best = choose().body()


class Toy(Body):
    centred = best.centred

    def dot_lines(self, b, total, lines, words, code_bits):
        return best.dot_lines(b, total, lines, words, code_bits)

    def dot_tile(self, b, lines, words, tokens, count, code_bits, start):
        return best.dot_tile(b, lines, words, tokens, count, code_bits, start)

    def dot_panels(self, b, totals, lines_of, which, words, code_bits, pairs_of=None, tokens=1):
        return best.dot_panels(b, totals, lines_of, which, words, code_bits, tokens=tokens)

    def lookup(self, b, table, codes):
        return best.lookup(b, table, codes)


BODY = Toy()
'''

RUN_BODY = """
sys.path.insert(0, sys.argv[1])
import kernel_calls
from edgeq.simd import isa

toy = next(body for body in kernel_calls.BODIES if body.isa.name == "toy")
best = next(body for body in kernel_calls.BODIES if body.isa == isa.choose())
rng = np.random.default_rng(1)
panels = kernel_calls.random_panels(rng, "Q8_0", 32, 64)
for tokens in (1, 5):
    x = rng.standard_normal((tokens, 64)).astype(np.float32)
    results = [kernel_calls.matmul(body, "Q8_0", panels, 32, x) for body in (toy, best)]
    assert results[0].any() and np.array_equal(*results)
"""


def test_a_body(copy: Copy):
    copy.file("simd/toy.py", BODY)
    best = choose()
    row = f'    Isa("toy", "edgeq.simd.toy", frozenset(), {best.tile}, {best.registers}, "nothing", {best.streams}),\n'
    copy.row("simd/isa.py", '    Isa("portable"', row)
    copy.run(RUN_BODY.replace("sys.argv[1]", repr(str(REPOSITORY / "tests"))))
    assert {name.replace("toy", "BODY") for name in copy.touched} == listed("An instruction set body")


ARCHITECTURE = '''"""Llama whose every second layer sees two positions only."""

from dataclasses import replace

from edgeq.models import llama
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.mixers import Attention


def compose(config: Config) -> Model:
    plain = llama.compose(config)
    layers = []
    for i, layer in enumerate(plain.layers):
        assert isinstance(layer.mixer, Attention)
        layers.append(layer._replace(mixer=layer.mixer.over(2)) if i % 2 else layer)
    return replace(plain, name="toy", layers=layers)
'''

RUN_ARCHITECTURE = """
import json, shutil
from pathlib import Path
from edgeq.container.reader import open_file
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session

shutil.copytree(sys.argv[1], "toy")
config = json.loads(Path("toy/config.json").read_text())
Path("toy/config.json").write_text(json.dumps({**config, "model_type": "toy"}))
logits = []
for folder in (sys.argv[1], "toy"):
    path = Path(folder).name + ".eqf"
    convert(Path(folder), Path(path), "F32")
    with open_file(path) as file, Session(file, context=16, threads=1) as session:
        assert session.model.name == file.metadata["architecture"]
        logits.append(session.eval([5, 6, 7, 8], all_logits=True))
assert np.array_equal(logits[0][:2], logits[1][:2]) and not np.array_equal(logits[0][2:], logits[1][2:])
"""


def test_an_architecture(copy: Copy):
    copy.file("models/toy.py", ARCHITECTURE)
    copy.row("models/__init__.py", '    "llama",', '    "toy",\n')
    copy.run(RUN_ARCHITECTURE.replace("sys.argv[1]", repr(str(REPOSITORY / "tools" / "tiny_model"))))
    needed = {name.replace("toy", "MODEL_TYPE") for name in copy.touched}
    assert needed <= listed("An architecture")


def test_the_page_names_the_tests_of_what_is_added_elsewhere():
    """A block type and steps of the sampler are added by tests beside what they are added to."""
    assert listed("A sampler option") == {"decode/sampler_steps.py"}
    assert {"blocks/table.py"} <= listed("A block type")
    for name in ("tests/decode/test_an_added_step.py", "tests/kernels/test_codes.py"):
        assert f"`{name}`" in PAGE and (REPOSITORY / name).is_file()
