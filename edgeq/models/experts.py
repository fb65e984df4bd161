"""A mixture of experts in the place of the MLP: what Mixtral, Qwen's and OLMoE's layers have in common."""

from edgeq.errors import CheckpointError
from edgeq.models import llama
from edgeq.models.tensors import Fused, Tensors
from edgeq.ops import Experts, Graph, Value

NAMES = ("mlp.gate", "mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj")


def part_read(source: str, count: int, top_k: int) -> float:
    """The part of the experts that a token needs; CheckpointError if there are fewer than that."""
    if top_k > count:
        raise CheckpointError(f"{source}: num_experts_per_tok is {top_k}, there are {count} experts")
    return top_k / count


def tensors(model: llama.Model, t: Tensors, count: int, width: int, names: tuple[str, str, str, str] = NAMES) -> None:
    """The router, and the experts' matrices of `width` values in between, stacked; `names` are the checkpoint's."""
    router, gate, up, down = names
    t.matrix("ffn_gate_inp", router, count, model.hidden_size)
    t.experts("ffn_gate_exps", gate, count, width, model.hidden_size)
    t.experts("ffn_up_exps", up, count, width, model.hidden_size)
    t.experts("ffn_down_exps", down, count, model.hidden_size, width)
    # As transformers holds them in memory, and as some checkpoints do
    whole, n = "mlp.experts.", model.hidden_size
    t.also("ffn_gate_inp", "mlp.gate", count, n)
    t.stacked("ffn_gate_exps", f"{whole}gate_up_proj", count, width, n, Fused(2 * width))
    t.stacked("ffn_up_exps", f"{whole}gate_up_proj", count, width, n, Fused(2 * width, first=width))
    t.stacked("ffn_down_exps", f"{whole}down_proj", count, n, width, Fused(n))


def mixture(
    model: llama.Model,
    g: Graph,
    h: Value,
    i: int,
    top_k: int,
    normalized: bool,
    count: int,
    add_to: Value,
    factor: float = 1.0,
) -> Value:
    """The experts of layer i on h, times `factor`, added to `add_to`."""
    router = model.linear(g, h, f"blk.{i}.ffn_gate_inp")
    return g.experts(h, router, Experts(count, top_k, normalized, f"blk.{i}.ffn", factor), add_to)
