"""Recipes give the types that they are known for."""

from dataclasses import replace
from itertools import product

import pytest

from edgeq.blocks.table import BLOCK_TYPES, block_type
from edgeq.errors import UsageError
from edgeq.quantize.recipes import ALIASES, RECIPES, Choice, more_bits, recipe


def types(name: str, tensor: str, n_layers: int = 22, tied: bool = False, columns: int = 256) -> list[str]:
    return [recipe(name).type_for(tensor.format(i), (64, columns), n_layers, tied).type for i in range(n_layers)]


@pytest.mark.parametrize("name", RECIPES)
def test_gguf_can_hold_what_is_chosen_for_it(name: str) -> None:
    """Whole super-blocks leave the recipe as it is; of rows that end in a short one it takes what can."""
    plain, chosen = RECIPES[name], replace(RECIPES[name], gguf=True)
    for part, columns in product(("attn_v", "ffn_down", "attn_q"), (256, 512, 576, 96)):
        choice = chosen.type_for(f"blk.0.{part}.weight", (64, columns), 8, False)
        usual = plain.type_for(f"blk.0.{part}.weight", (64, columns), 8, False)
        assert block_type(choice.type).gguf_bytes(64, columns) > 0
        assert choice.type == usual.type or f"GGUF cannot hold rows of {columns} in " in choice.fallback
        if columns % 256 == 0 and name not in ("NF4", "I8_R"):
            assert choice == usual
    assert chosen.type_for("blk.0.attn_q.weight", (64, 40), 8, False).type in ("F16", "BF16", "F32")


@pytest.mark.parametrize("columns", [64, 256])
def test_matrices_of_heads_stay_at_eight_bits(columns: int) -> None:
    for part in ("attn_k_b", "attn_v_b"):
        for name in ("Q4_K_M", "Q2_K", "TQ2_0", "I8_R"):
            assert set(types(name, f"blk.{{}}.{part}.weight", columns=columns)) == {"Q8_0"}
        assert set(types("F16", f"blk.{{}}.{part}.weight", columns=columns)) == {"F16"}


def test_names() -> None:
    assert recipe("q4_k_m") is recipe("Q4_K") is RECIPES["Q4_K_M"]
    assert recipe("q5_K") is RECIPES["Q5_K_M"]
    for name in ("", "Q3", "Q4_K_L", "q4"):
        with pytest.raises(UsageError) as caught:
            recipe(name)
        assert all(known in str(caught.value) for known in [*RECIPES, *ALIASES])


def test_a_near_miss_is_suggested() -> None:
    for wrong, near in (("Q4_K_L", "Q4_K_M"), ("q8", "Q8_0"), ("BF61", "BF16"), ("Q4KM", "Q4_K_M")):
        with pytest.raises(UsageError, match=f"unknown type '{wrong}': did you mean {near}\\? Known are F32"):
            recipe(wrong)
    with pytest.raises(UsageError, match="unknown type 'xyz': Known are F32"):
        recipe("xyz")


def test_every_type_is_in_the_table() -> None:
    for r in RECIPES.values():
        assert {r.base, r.head, *(rule.type for rule in r.rules)} <= set(BLOCK_TYPES)


def test_more_bits_of_22_layers() -> None:
    assert [i for i in range(22) if more_bits(i, 22)] == [0, 1, 4, 7, 10, 13, 16, 19, 20, 21]


@pytest.mark.parametrize("n_layers", [1, 5, 7, 8, 24, 80])
def test_more_bits_is_about_half(n_layers: int) -> None:
    assert 0.25 * n_layers <= sum(more_bits(i, n_layers) for i in range(n_layers)) <= 0.6 * n_layers + 1


@pytest.mark.parametrize(("name", "base"), [("Q4_K_M", "Q4_K"), ("Q5_K_M", "Q5_K")])
def test_medium_mixes(name: str, base: str) -> None:
    expected = ["Q6_K" if more_bits(i, 22) else base for i in range(22)]
    assert types(name, "blk.{}.attn_v.weight") == expected
    assert types(name, "blk.{}.ffn_down.weight") == expected
    for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
        assert types(name, f"blk.{{}}.{part}.weight") == [base] * 22


def test_small_mixes() -> None:
    assert types("Q4_K_S", "blk.{}.attn_v.weight") == ["Q5_K"] * 4 + ["Q4_K"] * 18
    assert types("Q4_K_S", "blk.{}.ffn_down.weight") == ["Q5_K"] * 2 + ["Q4_K"] * 20
    assert set(types("Q5_K_S", "blk.{}.ffn_down.weight")) == {"Q5_K"}


def test_mixes_of_few_bits() -> None:
    assert types("Q3_K", "blk.{}.attn_v.weight") == ["Q5_K"] * 2 + ["Q4_K"] * 20
    assert types("Q3_K_M", "blk.{}.ffn_down.weight") == ["Q5_K"] + ["Q4_K"] * 21
    assert set(types("Q3_K_M", "blk.{}.ffn_up.weight")) == set(types("Q3_K_S", "blk.{}.attn_v.weight")) == {"Q3_K"}
    assert set(types("Q2_K", "blk.{}.attn_output.weight")) == {"Q3_K"}
    assert types("IQ4_XS", "blk.{}.ffn_down.weight") == ["Q5_K"] * 2 + ["IQ4_XS"] * 20


def test_rows_of_no_whole_super_blocks_move_up() -> None:
    """As llama.cpp's files of these names do there; not where super-blocks are whole, nor what is large enough."""
    assert set(types("Q3_K_S", "blk.{}.attn_q.weight", columns=576)) == {"Q4_K"}
    assert set(types("Q2_K", "blk.{}.attn_q.weight", columns=576)) == {"Q3_K"}
    assert set(types("Q2_K", "blk.{}.ffn_down.weight", columns=576)) == {"Q4_K"}
    assert set(types("Q2_K", "blk.{}.ffn_down.weight", columns=1536)) == {"Q3_K"}
    for name in ("Q4_K_S", "Q4_K_M"):
        assert set(types(name, "blk.{}.attn_q.weight", columns=576)) == {"Q5_K"}
        assert set(types(name, "blk.{}.attn_q.weight", columns=512)) == {"Q4_K"}
        assert set(types(name, "blk.{}.ffn_up.weight", columns=576)) == {"Q4_K"}
    assert types("Q4_K_M", "blk.{}.attn_v.weight", columns=576) == types("Q4_K_M", "blk.{}.attn_v.weight")
    assert set(types("Q5_K_M", "blk.{}.attn_q.weight", columns=576)) == {"Q5_K"}
    choice = recipe("Q2_K").type_for("blk.0.attn_q.weight", (64, 576), 22, tied=True)
    assert choice.fallback == "rows of 576 weights are no multiple of 256: Q3_K, as Q2_K loses much"


@pytest.mark.parametrize(
    ("name", "embedding", "head"),
    [
        ("Q4_K_M", "Q4_K", "Q6_K"),
        ("Q4_0", "Q4_0", "Q6_K"),
        ("Q8_0", "Q8_0", "Q8_0"),
        ("MXFP4", "MXFP4", "Q8_0"),
        ("TQ2_0", "Q4_K", "Q6_K"),
        ("F16", "F16", "F16"),
        ("BF16", "BF16", "BF16"),
        ("F32", "F32", "F32"),
    ],
)
def test_head_and_embedding(name: str, embedding: str, head: str) -> None:
    assert types(name, "output.weight")[0] == head
    assert types(name, "token_embd.weight")[0] == embedding
    assert types(name, "token_embd.weight", tied=True)[0] == head


@pytest.mark.parametrize("name", RECIPES)
def test_vectors_are_f32(name: str) -> None:
    for tensor in ("blk.0.attn_norm.weight", "blk.0.attn_q.bias", "output_norm.weight"):
        assert recipe(name).type_for(tensor, (64,), 4, False).type == "F32"


def test_experts_and_long_rows_have_no_single_scale() -> None:
    chosen = recipe("I8_R")
    assert chosen.type_for("blk.0.attn_q.weight", (64, 96), 2, False) == Choice("I8_R")
    experts = chosen.type_for("blk.0.ffn_up_exps.weight", (4, 64, 96), 2, False)
    assert experts == Choice("Q8_0", "experts' rows have a scale for each group: Q8_0, not I8_R")
    assert chosen.type_for("blk.0.ffn_down.weight", (64, 96), 2, False) == Choice("Q8_0")
    long = chosen.type_for("blk.0.ffn_up.weight", (64, 131104), 2, False)
    assert long == Choice("F16", "I8_R needs rows of up to 131072 weights, not 131104: F16")
    assert replace(chosen, gguf=True).type_for("blk.0.attn_q.weight", (64, 96), 2, False).type == "Q8_0"


def test_ragged_rows_fall_back() -> None:
    choice = recipe("Q4_K_M").type_for("blk.3.ffn_up.weight", (64, 100), 22, False)
    assert choice.type == "F16" and choice.fallback is not None
    assert "100" in choice.fallback and "Q4_K" in choice.fallback
    assert recipe("BF16").type_for("blk.3.ffn_up.weight", (64, 100), 22, False).fallback is None
    assert recipe("Q4_K_M").type_for("blk.3.ffn_up.weight", (64, 96), 22, False).fallback is None
