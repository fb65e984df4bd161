"""Layers and models put together from parts, in the order in which these are said."""

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

import edgeq.models
from edgeq.models.composition import Embedding, Head, Model
from edgeq.models.dimensions import Dimensions
from edgeq.models.feed_forward import gated
from edgeq.models.layers import BothNorms, Layer, NormedSums, Norms, Parallel, PostNorms, PreNorms
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, ShortConvolution, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.tensors import Tensors
from edgeq.ops import NO_ROPE, Heads


class Said:
    """A graph whose values are what was said of them."""

    def rms_norm(self, x: str, weight: str, eps: float, add_to: str | None = None) -> str:
        """The norm's name of x."""
        normed = f"{weight.split('.')[-2]}({x})"
        return normed if add_to is None else f"{add_to}+{normed}"

    def add(self, x: str, y: str, factor: float) -> str:
        """x and a multiple of y."""
        return f"{x}+{factor}*{y}"


@dataclass(frozen=True)
class Part:
    """A mixer or a feed-forward that does nothing but say its name."""

    name: str

    def tensors(self, t: Tensors) -> None:
        t.vector(f"{self.name}.weight", f"their_{self.name}", 1)

    def graph(self, g: Any, h: Any, i: int, add_to: Any = None) -> Any:
        said = f"{self.name}{i}({h})"
        return said if add_to is None else f"{add_to}+{said}"


def norm(name: str) -> RMSNorm:
    return RMSNorm(name, f"their_{name}", 4, 1e-6)


A, B, C, D = map(norm, "abcd")


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        (PreNorms(A, B), "{x}+ffn3(b({x}))"),
        (PreNorms(A, B, mixed=0.5), "{half}+ffn3(b({half}))"),
        (PreNorms(A, B, mixed=0.5, fed=2.0), "{half}+2.0*ffn3(b({half}))"),
        (PostNorms(A, B), "x+a(mix3(x))+b(ffn3(x+a(mix3(x))))"),
        (BothNorms(A, B, C, D), "x+b(mix3(a(x)))+d(ffn3(c(x+b(mix3(a(x))))))"),
        (NormedSums(A, B), "b(a(x+mix3(x))+ffn3(a(x+mix3(x))))"),
        (Parallel(A), "{x}+ffn3(a(x))"),
        (Parallel(A, B), "{x}+ffn3(b(x))"),
    ],
)
def test_where_the_norms_of_a_layer_stand(norms: Norms, said: str) -> None:
    layer = Layer(norms, Part("mix"), Part("ffn"))
    graph: Any = Said()
    expected = said.format(x="x+mix3(a(x))", half="x+0.5*mix3(a(x))")
    start: Any = "x"
    assert layer.graph(graph, start, 3) == expected
    tensors = Tensors()
    layer.tensors(tensors.within("blk.3.", "layers.3."))
    assert {name.split(".")[2] for name in tensors} == {
        "mix",
        "ffn",
        *(name for name in "abcd" if f"{name}(" in expected),
    }
    assert all(tensor.parts[0].source.startswith("layers.3.their_") for tensor in tensors.values())


def test_a_hybrid_is_a_list_of_layers_of_different_mixers() -> None:
    heads = Heads(2, 1, 16)
    attention = Attention(separate(32, heads), output(32, heads), heads, NO_ROPE)
    norms, mlp = PreNorms(norm("attn_norm"), norm("ffn_norm")), gated(32, 64, "silu")
    mixers = [ShortConvolution(32, 3, bias=True), attention.over(24), attention]
    embedding = Matrix("token_embd", "embed", 48, 32, instead="head")
    layers = [Layer(norms, mixer, mlp) for mixer in mixers]
    head = Head(norm("output_norm"), embedding)
    model = Model("hybrid", Dimensions(32, 64, 3, 48, 256), attention, Embedding(embedding), layers, head)
    assert model.windows == [None, 24, None]
    assert model.tensors["blk.0.shortconv.conv.weight"].shape == (32, 3)
    assert model.tensors["blk.0.shortconv.in_proj.bias"].parts[0].source == "model.layers.0.conv.in_proj.bias"
    assert model.tensors["blk.1.attn_k.weight"].parts[0].source == "model.layers.1.self_attn.k_proj.weight"
    assert "blk.0.attn_k.weight" not in model.tensors and "blk.1.shortconv.conv.weight" not in model.tensors
    assert model.tensors["token_embd.weight"].instead[0].source == "head.weight"


def test_nothing_inherits_from_what_inherits() -> None:
    """Parts are put together; a class has a base of the package at most, which has none itself."""
    for module in pkgutil.iter_modules(edgeq.models.__path__, "edgeq.models."):
        for one in vars(import_module(module.name)).values():
            if isinstance(one, type) and one.__module__ == module.name:
                own = [base for base in one.__mro__ if base.__module__.startswith("edgeq.")]
                assert len(own) <= 2, f"{module.name}.{one.__name__} is {len(own)} deep"


def test_layers_that_predict_further_tokens_may_come_last():
    """They are counted with the layers that a file may hold; no other is."""
    from edgeq.models.matrix import layer_past_the_last, layers_held

    names = ["token_embd.weight", "blk.0.attn_q.weight", "blk.3.attn_q.weight", "blk.10x.y", "blk.٣.z"]
    assert layer_past_the_last(names, 4) is None
    assert layer_past_the_last(names, 3) == "blk.3.attn_q.weight"
    assert layer_past_the_last(names, layers_held(3, {"num_nextn_predict_layers": 1})) is None
    for odd in (None, True, -1, 1e9, "1", 10**9):
        assert layers_held(3, {"num_nextn_predict_layers": odd}) == 3
    assert layer_past_the_last([f"blk.{'9' * 5000}.a"], 4) is not None
