"""OLMo 2: Llama that norms what attention and MLP give instead of what they get, and q and k (arXiv:2501.00656)."""

from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """OLMo 2."""

    name = "olmo2"
    eps = 1e-5

    def layer_tensors(self, t: Tensors, i: int) -> None:
        """The norms of q and k go over all heads at once."""
        self.attention_tensors(t)
        self.mlp_tensors(t, i)
        self.norm_tensors(t, "attn_q_norm", "self_attn.q_norm", self.q_width)
        self.norm_tensors(t, "attn_k_norm", "self_attn.k_norm", self.kv_width)
        self.norm_tensors(t, "post_attention_norm", "post_attention_layernorm")
        self.norm_tensors(t, "post_ffw_norm", "post_feedforward_layernorm")

    def before_rope(self, g: Graph, q: Value, k: Value, i: int) -> tuple[Value, Value]:
        """All heads are normed together."""
        return self.norm(g, q, f"blk.{i}.attn_q_norm"), self.norm(g, k, f"blk.{i}.attn_k_norm")

    def layer(self, g: Graph, x: Value, i: int) -> Value:
        """What is added to the residual stream is normed before; what is taken from it is not."""
        x = self.norm(g, self.attention(g, x, i), f"blk.{i}.post_attention_norm", add_to=x)
        return self.norm(g, self.mlp(g, x, i), f"blk.{i}.post_ffw_norm", add_to=x)
