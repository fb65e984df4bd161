"""Passes over a model's operations: what they keep, and that nothing else changes by a bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_checkpoints

from edgeq.blocks.reference import decode
from edgeq.container.reader import File, open_file
from edgeq.errors import FormatError, UsageError
from edgeq.models import architecture
from edgeq.ops import Graph, matmul, passes
from edgeq.ops.pack import Pack
from edgeq.ops.pack_tokens import PackTokens
from edgeq.quantize.pipeline import convert
from edgeq.quantize.static_scales import set_scales
from edgeq.runtime.fit import Fit
from edgeq.runtime.session import Session

PROMPT = [1, 45, 9, 30, 7, 7, 101, 64, 12, 5, 88]
NAMES = ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.1.ffn_down.weight", "output.weight"]


def sources(file: File) -> list[str]:
    """Those of NAMES that the file has; a tied head is the embedding's matrix."""
    return [name for name in NAMES if name in file.tensors]


@pytest.mark.parametrize("kind", ["Q4_K_M", "F32"])
@pytest.mark.parametrize("batch", [4, 512])
def test_taps_show_what_matrices_read_and_change_nothing(tiny: Callable[[str], File], kind: str, batch: int) -> None:
    file = tiny(kind)
    seen: dict[str, list[np.ndarray]] = {}

    def tapped(name: str, x: np.ndarray) -> None:
        seen.setdefault(name, []).append(x.copy())

    with Session(file, context=64, threads=2, batch=batch) as plain:
        expected = plain.eval(PROMPT)
    with Session(file, context=64, threads=2, batch=batch, taps=sources(file)) as session:
        assert np.array_equal(session.eval(PROMPT, tapped=tapped), expected)
        assert session.plan.taps["blk.0.attn_q.weight"][0] is not None
    assert set(seen) == set(sources(file))
    assert [len(part) for part in seen["blk.0.attn_q.weight"]] == [
        min(batch, len(PROMPT) - first) for first in range(0, len(PROMPT), batch)
    ]
    q, k = (np.concatenate(seen[name]) for name in NAMES[:2])
    assert np.array_equal(q, k), "queries and keys read the same"
    assert q.shape == (len(PROMPT), file.tensors[NAMES[0]].shape[1])
    assert 0.1 < np.abs(q).mean() < 10


def test_a_tap_is_the_matrix_s_own_input(tiny: Callable[[str], File]) -> None:
    """What the head was shown, times its matrix, are the logits."""
    file = tiny("F32")
    head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    shown: list[np.ndarray] = []
    with Session(file, context=64, threads=1, taps=[head]) as session:
        logits = session.eval(PROMPT, tapped=lambda name, x: shown.append(x.copy()))
    weights = decode(file.data(head), *file.tensors[head].shape, file.tensors[head].type)
    np.testing.assert_allclose(logits, matmul.reference(weights, "F32", shown[0]), rtol=1e-4, atol=1e-4)


def test_a_tap_of_what_is_no_matrix_is_refused(tiny: Callable[[str], File]) -> None:
    with pytest.raises(UsageError, match=r"blk\.0\.attn_norm\.weight is no matrix of a linear layer that"):
        Session(tiny("F32"), context=64, taps=["blk.0.attn_norm.weight"])


@pytest.mark.parametrize("kind", ["Q4_K_M", "F32"])
def test_rows_in_place_of_ids(tiny: Callable[[str], File], kind: str) -> None:
    """The rows of the embedding matrix give the bits that the ids give."""
    file = tiny(kind)
    info = file.tensors["token_embd.weight"]
    rows = decode(file.data("token_embd.weight"), *info.shape, info.type)[PROMPT].astype(np.float32)
    with Session(file, context=64, threads=2) as session:
        expected = session.eval(PROMPT, all_logits=True)
    with Session(file, context=64, threads=2, rows=True) as session:
        found = np.concatenate([session.eval(rows[:4], all_logits=True), session.eval(rows[4:], all_logits=True)])
        assert np.array_equal(found, expected)
        with pytest.raises(UsageError, match=r"rows must be \[tokens, \d+\], these are \[11\]"):
            session.eval(PROMPT)
    with pytest.raises(UsageError, match="closed"):
        session.eval(rows)


def test_what_are_no_ids_no_rows_and_no_taps_is_refused(tiny: Callable[[str], File]) -> None:
    file = tiny("F32")
    with pytest.raises(UsageError, match="taps must be a list of names"):
        Session(file, context=64, taps="output.weight")
    with Session(file, context=64, threads=1) as session, pytest.raises(UsageError, match="ids must be integers"):
        session.eval(np.zeros((2, 192), np.float32))
    with Session(file, context=64, threads=1, rows=True) as session, pytest.raises(UsageError, match="finite"):
        session.eval(np.full((2, 192), np.nan, np.float32))


def test_taps_count_as_memory(tiny: Callable[[str], File]) -> None:
    file, names = tiny("F32"), ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    model = architecture(file.metadata["config"], "tiny")
    plain, tapped = (Fit(file, model, "f16", 512, 16, 1, taps=taps).estimate(512) for taps in ((), names))
    width = file.tensors[names[0]].shape[1]
    assert tapped.scratch - plain.scratch >= 2 * 512 * width * 4


def graph() -> Graph:
    """x -> norm -> two matrices, of which one is quantized."""
    g = Graph({"embd": (8, 32), "norm": (32,), "a": (32, 32), "b": (32, 32)})
    x = g.embedding("embd")
    h = g.rms_norm(x, "norm", 1e-5)
    g.linear(g.linear(h, "a"), "b", add_to=x)
    return g


@pytest.mark.parametrize(
    ("quantized", "packed", "only", "packs"), [("a", {1}, {1}, 0), ("b", {2}, set(), 1), ("", set(), set(), 0)]
)
def test_who_packs(quantized: str, packed: set[int], only: set[int], packs: int) -> None:
    nodes, found = passes.fuse_packing(graph().nodes, lambda weight: weight == quantized)
    assert (found.packed, found.only_packed) == (packed, only)
    assert sum(isinstance(node.op, Pack) for node in nodes) == packs


@pytest.mark.parametrize(
    ("scales", "packed", "plain"),
    [
        ({"a": 0.0, "b": 0.0, "c": 0.0}, [0.0], False),  # one for all three
        ({"a": 0.5, "b": 0.0, "c": 0.5}, [0.5, 0.0], False),  # two read the same, one by each token's own scale
        ({"b": 0.0}, [0.0], True),  # the others are packed by groups, by the norm that writes what they read
    ],
    ids=["alike", "given", "mixed"],
)
def test_matrices_whose_rows_have_one_scale_read_values_of_their_own(scales, packed, plain) -> None:
    g = Graph({"embd": (8, 32), "norm": (32,), "a": (32, 32), "b": (32, 32), "c": (32, 32)})
    x = g.embedding("embd")
    h = g.rms_norm(x, "norm", 1e-5)
    for name in "abc":
        g.linear(h, name)
    g.linear(g.add(x, h), "a")  # what is read has changed: it is packed anew
    nodes, found = passes.fuse_packing(passes.pack_tokens(g.nodes, scales.get), lambda weight: True)
    packs = [node for node in nodes if isinstance(node.op, PackTokens)]
    assert [node.op.scale for node in packs] == packed + [scales[name] for name in "a" if name in scales]
    values = {node.op.scale: node.output for node in packs[: len(packed)]}
    for node in [node for node in nodes if isinstance(node.op, matmul.Linear)][:3]:
        assert node.op.x == (values[scales[node.op.weight]] if node.op.weight in scales else h)
    assert {value.index for value in values.values()} <= found.only_packed
    assert h.index not in found.only_packed, "its f32 rows are packed from"
    assert (h.index in found.packed) == plain
    assert len({node.output.index for node in nodes}) == len({value for node in nodes for value in node.values})


def test_scales_that_a_file_carries_change_what_they_should(tiny: Callable[[str], File], tmp_path: Path) -> None:
    """I8_R on the bundled model: near F32's logits with each token's own scale and with good ones of the file; with bad
    ones far off. A matrix of the same input with another scale has its own packed rows."""
    file, seen = tiny("I8_R"), dict[str, float]()
    names = [name for name, info in file.tensors.items() if info.type == "I8_R" and name != "token_embd.weight"]

    def tapped(name: str, x: np.ndarray) -> None:
        seen[name] = max(seen.get(name, 0.0), float(np.abs(x).max()))

    def logits(model: File, **options: Any) -> np.ndarray:
        with Session(model, context=64, threads=2, **options) as session:
            return session.eval(PROMPT, all_logits=True, tapped=tapped if "taps" in options else None).copy()

    expected, own = logits(tiny("F32")), logits(file, taps=names)
    spread = float(expected.std())
    assert np.sqrt(np.mean((own - expected) ** 2)) < 0.04 * spread
    np.testing.assert_array_equal(logits(file), own)
    scales = {name: most / 127 for name, most in seen.items()}
    set_scales(file.path, tmp_path / "good.eqf", scales)
    with open_file(tmp_path / "good.eqf") as good:
        assert good.tensors[names[0]].activation_scale == float(np.float32(scales[names[0]]))
        given = logits(good)
        assert 0 < np.sqrt(np.mean((given - own) ** 2)) < 0.1 * spread
        with Session(good, context=64, threads=1, batch=4) as session:
            np.testing.assert_array_equal(session.eval(PROMPT), given[-1:])
    first = "blk.0.attn_k.weight"
    set_scales(file.path, tmp_path / "bad.eqf", scales | {first: scales[first] / 50})
    with open_file(tmp_path / "bad.eqf") as bad:
        assert np.sqrt(np.mean((logits(bad) - own) ** 2)) > 1.2 * np.sqrt(np.mean((given - own) ** 2))


def test_a_mixture_of_experts_is_refused_by_name(tmp_path: Path) -> None:
    _, _, _ = random_checkpoints.make("mixtral")
    folder = random_checkpoints.write("mixtral", tmp_path / "mixtral")
    report = convert(folder, tmp_path / "m.eqf", "I8_R", allow_no_tokenizer=True)
    kinds = {tensor.name: tensor.type for tensor in report.tensors}
    assert kinds["blk.0.ffn_down_exps.weight"] == "Q8_0" and kinds["blk.0.attn_q.weight"] == "I8_R"
    with open_file(tmp_path / "m.eqf") as file:
        name = "blk.0.ffn_down_exps.weight"
        file.tensors[name] = replace(file.tensors[name], type="I8_R")
        with pytest.raises(FormatError, match=rf"{name} is I8_R, which experts cannot be: convert the model again"):
            Session(file, context=16, threads=1)


def test_states_leave_out_the_head() -> None:
    g = graph()
    x = g.nodes[-1].output
    logits = g.linear(g.rms_norm(g.outputs(x), "norm", 1e-5), "b")
    nodes, result = passes.states(g.nodes, logits)
    assert len(nodes) == 5 and not result.outputs and nodes[-1].op.reads == (x,)
    assert passes.states(graph().nodes, x) == (graph().nodes, x), "there is no head"
