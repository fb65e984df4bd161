"""BitNet b1.58: Llama with a norm before each output projection; its weights are -1, 0 or 1 times a scale per matrix
(arXiv:2402.17764)."""

from edgeq.models import llama
from edgeq.models.graph import Graph, Value
from edgeq.models.tensors import Tensors


class Model(llama.Model):
    """BitNet, its weights as numbers."""

    name = "bitnet"
    act = "relu2"
    eps = 1e-5

    def attention_tensors(self, t: Tensors) -> None:
        """The norm lies between the heads and the output projection."""
        super().attention_tensors(t)
        self.norm_tensors(t, "attn_sub_norm", "self_attn.attn_sub_norm")

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """The norm lies before the down projection."""
        super().mlp_tensors(t, i)
        self.norm_tensors(t, "ffn_sub_norm", "mlp.ffn_sub_norm", self.intermediate_size)

    def attend(self, g: Graph, q: Value, k: Value, v: Value, i: int) -> Value:
        """What the heads give is normed."""
        return self.norm(g, super().attend(g, q, k, v, i), f"blk.{i}.attn_sub_norm")

    def gated(self, g: Graph, gate: Value, up: Value, i: int) -> Value:
        """The gated row is normed."""
        return self.norm(g, super().gated(g, gate, up, i), f"blk.{i}.ffn_sub_norm")
