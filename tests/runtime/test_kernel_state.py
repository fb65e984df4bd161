"""Which kernels a model needs, known before any plan is compiled."""

import sys
from pathlib import Path

import pytest

from edgeq.container.reader import open_file
from edgeq.models import architecture
from edgeq.ops import catalog
from edgeq.quantize.pipeline import convert
from edgeq.quantize.recipes import RECIPES
from edgeq.runtime.compiler import Compiler
from edgeq.runtime.kernel_state import needed
from edgeq.runtime.limits import KERNELS
from edgeq.toolchain import cpus

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
import random_checkpoints


@pytest.mark.parametrize("case", ["llama", "gemma2", "gpt-oss", "lfm2", "falcon-newer", "bert"])
@pytest.mark.parametrize("cpu", ["x86-64-v4", "cortex-a76"])
def test_every_plan_has_what_it_needs(case: str, cpu: str, tmp_path: Path):
    """Whatever the context, the threads, the batch and the KV cache; and nothing that no CPU's library has."""
    convert(random_checkpoints.write(case, tmp_path), tmp_path / "m.eqf", "Q8_0", allow_no_tokenizer=True)
    isa = cpus.cpu(cpu).isa
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


COMMON = ["llama", "llama-bias", "llama-one-kv-head-of-7", "mistral-window", "qwen2", "qwen3", "gemma", "gemma2"]
COMMON += ["gemma3", "phi3", "smollm3", "olmo2", "granite", "phi", "gpt2", "lfm2", "bert"]


@pytest.mark.parametrize("case", COMMON)
def test_an_installation_brings_what_common_models_need(case: str, tmp_path: Path):
    convert(random_checkpoints.write(case, tmp_path), tmp_path / "m.eqf", "F16", allow_no_tokenizer=True)
    for cpu in ("x86-64-v4", "cortex-a76"):
        isa = cpus.cpu(cpu).isa
        with open_file(tmp_path / "m.eqf") as file:
            compiler = Compiler(file, architecture(file.metadata["config"]), 64, 64, 16, 2, "f16", tile=isa.tile)
            compiler.place()
        assert {*KERNELS, *compiler.tape.kernels} <= set(catalog.common(isa)) < set(catalog.names(isa))


@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"])
def test_an_installation_brings_the_types_of_common_recipes(name: str):
    recipe = RECIPES[name]
    for kind in (recipe.base, recipe.head, recipe.embedding or recipe.base, *(rule.type for rule in recipe.rules)):
        assert {f"matmul:{kind}", f"embedding:{kind}"} <= set(catalog.common(cpus.cpu("x86-64-v3").isa))
