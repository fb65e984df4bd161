"""Disentangled attention (arXiv:2006.03654, section 3.1): queries also meet embeddings of where keys are, and keys
those of where queries are.

What projections make of these embeddings is the same for every text. It is computed when a checkpoint is converted: of
each head a key for every relative position, and a query for every one."""

from typing import NamedTuple

from edgeq.models.matrix import layer_name
from edgeq.models.mixers import Attention
from edgeq.models.tensors import Projected, Tensors
from edgeq.ops import Graph, RelativeScores, Value


class DisentangledAttention(NamedTuple):
    """plain:        attention without a rotary embedding, none of whose heads share keys
    given:           the embeddings of relative positions, as the checkpoint has them
    keys, queries:   what projects them, by their names in a layer there
    farthest:        see RelativeScores
    """

    plain: Attention
    given: Projected
    keys: str
    queries: str
    farthest: int

    def tensors(self, t: Tensors) -> None:
        """The projections; of each head a key and a query for every relative position."""
        self.plain.tensors(t)
        heads = self.plain.heads
        rows = heads.num_attention_heads * heads.head_dim
        for name, source in (("attn_pos_k", self.keys), ("attn_pos_q", self.queries)):
            t.projected(name, source, heads.num_attention_heads, rows, self.plain.output.rows, self.given)

    def graph(self, g: Graph, h: Value, i: int, add_to: Value | None = None) -> Value:
        """Layer i's, of h, added to `add_to`."""
        at, heads, plain = layer_name(i), self.plain.heads, self.plain
        q, k, v = (projection.graph(g, h, at) for projection in plain.qkv)
        of_query, of_key = (
            g.head_linear(value, f"{at}attn_pos_{other}.weight", heads.num_attention_heads, self.given.number)
            for value, other in ((q, "k"), (k, "q"))
        )
        relative = RelativeScores(of_query, of_key, self.given.number // 2, self.farthest)
        seen = g.attend(g.rotate(q, k, v, heads, plain.rope, layer=i), heads, layer=i, relative=relative)
        return plain.output.graph(g, seen, at, add_to)
