"""StarCoder and SantaCoder: GPT-2 whose query heads share one key/value head (arXiv:2305.06161)."""

from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import checked
from edgeq.models.gpt2 import decoder, read_gpt_dimensions
from edgeq.models.mixers import fused, fused_by_head


def compose(config: Config) -> Model:
    """Without multi_query each head has a key and a value of its own, which stand beside its query."""
    config.refuse(scale_attn_weights=True, add_cross_attention=False)
    size = read_gpt_dimensions(config)
    n, count, one = size.hidden_size, config.integer("n_head"), config.flag("multi_query", True)
    heads = checked(config, count, 1 if one else count, n // count)
    qkv = (fused if one else fused_by_head)(n, heads, "attn.c_attn", bias=True)
    return decoder("gpt_bigcode", config, size, heads, qkv, "gelu_pytorch_tanh", transposed=False)
