"""The compiled tape: which kernels it calls, where its barriers are, how it uses memory, and what it imports."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeq.container.reader import File
from edgeq.graph.buffers import Scratch
from edgeq.graph.plan import Plan
from edgeq.kernels.layout import STEP_WORDS
from edgeq.runtime.adapted import AdaptedFile, LowRank
from edgeq.runtime.session import Session

LAYERS = 6
GENERATE = """
import sys
import edgeq

with edgeq.load(sys.argv[1], threads=2, context=64) as model:
    text = "".join(model.generate("Once upon a time", 4, temperature=0.0))
assert text
print(*sorted({"numba", "scipy", "torch"} & set(sys.modules)))
"""


def plan(file: File, **options: object) -> Plan:
    with Session(file, context=64, threads=2, **options) as session:
        return replace(session.plan)  # which closing the session does not release


def barriers(plan: Plan) -> np.ndarray:
    return plan.tape[2::STEP_WORDS]


def test_kernels_of_a_quantized_file(tiny: Callable[[str], File]) -> None:
    kernels = Counter(plan(tiny("Q8_0")).kernels)
    assert kernels == {
        "embedding:Q8_0": 1,
        "norm": 2 * LAYERS + 1,
        "matmul:Q8_0": 7 * LAYERS + 1,
        "rope:f16": LAYERS,
        "attention:3-f16": LAYERS,
        "silu_mul": LAYERS,
        "copy_rows": 1,
    }, "norm, attention and silu_mul quantize their own results"


def test_kernels_of_an_f32_file(tiny: Callable[[str], File]) -> None:
    kernels = Counter(plan(tiny("F32")).kernels)
    assert kernels["matmul:F32"] == 7 * LAYERS + 1
    assert kernels["attention:3-f32"] == kernels["rope:f32"] == LAYERS
    assert "pack" not in kernels


def test_a_mixed_recipe_calls_each_tensor_s_kernel(tiny: Callable[[str], File]) -> None:
    file = tiny("Q4_K_M")
    kernels = Counter(plan(file).kernels)
    types = Counter(info.type for info in file.tensors.values() if len(info.shape) == 2)
    assert kernels["matmul:Q4_K"] == types["Q4_K"] > 0
    assert kernels["matmul:Q6_K"] == types["Q6_K"] > 0
    assert kernels["embedding:Q6_K"] == 1


def test_barriers_only_where_data_needs_them(tiny: Callable[[str], File]) -> None:
    """q, k and v run side by side, and so do gate and up."""
    compiled = plan(tiny("Q4_K_M"))
    flags = barriers(compiled)
    assert len(flags) == compiled.steps == len(compiled.kernels)
    assert set(flags) == {0, 1} and flags[-1] == 1
    assert flags.sum() == compiled.steps - 3 * LAYERS
    for i, name in enumerate(compiled.kernels):
        if name.startswith("rope"):
            assert flags[i - 3 : i].tolist() == [0, 0, 1], "q and k, then a barrier after v"
        if name == "silu_mul":
            assert flags[i - 2 : i].tolist() == [0, 1], "gate, then a barrier after up"


def test_steps_without_a_barrier_share_no_memory(tiny: Callable[[str], File]) -> None:
    """Every pair of matmuls that may run at once writes to places of its own."""
    compiled = plan(tiny("Q4_K_M"))
    addresses = compiled.tape[1::STEP_WORDS]
    blocks = {args.ctypes.data: args for args in next(k for k in reversed(compiled.keep) if isinstance(k, list))}
    together: list[np.ndarray] = []
    compared = 0
    for address, name, barrier in zip(addresses, compiled.kernels, barriers(compiled), strict=True):
        if name.startswith("matmul"):
            args = blocks[int(address)]
            for other in together:
                compared += 1
                low, high = sorted([int(args[5]), int(other[5])])
                first = args if low == args[5] else other
                assert low + first[6] <= high, "outputs of at least a row each must not overlap"
                assert args[5] not in other[3:5] and other[5] not in args[3:5]
            together.append(args)
        if barrier:
            together.clear()
    assert compared == 4 * LAYERS


def test_buffers_are_recycled(tiny: Callable[[str], File]) -> None:
    """Memory does not grow with the number of layers."""
    with Session(tiny("Q4_K_M"), context=512, threads=2) as session:
        rows, width = session.batch, 192 + 2 * 640 + 4 * 192
        assert session.memory()["scratch"] < 3 * rows * width * 4


def test_rows_with_padding_are_used_again_by_their_like_alone() -> None:
    """Their padding is zero in every pass, whatever else the memory of others is used for in between."""
    scratch = Scratch()
    ragged = scratch.buffer(16, 40, plain=True, packed=False)
    scratch.release(ragged)
    other, like = (scratch.buffer(16, width, plain=True, packed=False) for width in (64, 40))
    assert not np.shares_memory(ragged.rows, other.rows) and np.shares_memory(ragged.rows, like.rows)


def test_numba_is_not_imported_once_kernels_are_cached(tiny: Callable[[str], File]) -> None:
    command = [sys.executable, "-c", GENERATE, tiny("Q4_K_M").path]
    for _ in range(2):  # the first run compiles what is missing
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def test_adapters_add_two_products_to_each_of_their_matrices(tiny: Callable[[str], File]) -> None:
    """A file without them has the same tape as ever; b (a x) waits for others that it can go with: a layer's queries,
    keys and values are added to at once."""
    file, random = tiny("Q8_0"), np.random.default_rng(3)
    names = [name for name in file.tensors if name.endswith(("_q.weight", "_k.weight", "_v.weight", "_up.weight"))]
    added = {
        name: LowRank(random.normal(0, 0.01, (5, columns)), random.normal(0, 0.01, (rows, 5)))
        for name in names
        for rows, columns in [file.tensors[name].shape]
    }
    base, adapted = plan(file), plan(AdaptedFile(file, added))
    more = Counter(adapted.kernels) - Counter(base.kernels)
    assert more == {"matmul:F32": 2 * 4 * LAYERS}
    assert not Counter(base.kernels) - Counter(adapted.kernels)
    assert barriers(adapted).sum() - barriers(base).sum() <= 2 * LAYERS, "one for q, k and v, one for the MLP's"
    assert plan(AdaptedFile(file, {})).kernels == base.kernels
