"""Which kernels a model needs, known before any plan is compiled."""

import sys
from pathlib import Path

import pytest

from edgeq.container.reader import open_file
from edgeq.kernels import catalog
from edgeq.models import architecture
from edgeq.quantize.pipeline import convert
from edgeq.runtime.compiler import Compiler
from edgeq.runtime.kernel_state import needed

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
import random_checkpoints


@pytest.mark.parametrize("case", ["llama", "gemma2", "gpt-oss", "lfm2", "falcon-newer", "bert"])
@pytest.mark.parametrize("cpu", ["x86-64-v4", "cortex-a76"])
def test_every_plan_has_what_it_needs(case: str, cpu: str, tmp_path: Path):
    """Whatever the context, the threads, the batch and the KV cache; and nothing that no CPU's library has."""
    convert(random_checkpoints.write(case, tmp_path), tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    isa = catalog.cpu(cpu).isa
    with open_file(tmp_path / "m.eqf") as file:
        names = needed(file, cpu)
        model = architecture(file.metadata["config"])
        for kv in ("f16", "q8_0", "f32"):
            for context, batch, threads in ((16, 1, 1), (256, 256, 2), (4096, 512, 7)):
                for states in (False, True) if model.heads.causal else (True,):
                    compiler = Compiler(file, model, context, batch, 16, threads, kv, states, isa.tile)
                    compiler.place()
                    assert set(compiler.tape.kernels) <= set(names)
    assert {"execute:publish", "execute:lead", "execute:serve"} < set(names) <= set(catalog.names(isa))
    assert len(set(names)) == len(names) < 40
