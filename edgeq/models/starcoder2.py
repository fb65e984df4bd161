"""StarCoder2: Llama with LayerNorm, biases everywhere and an MLP without a gate (arXiv:2402.19173)."""

from collections.abc import Mapping
from typing import Any

from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors


class Model(llama.Model):
    """StarCoder2."""

    name = "starcoder2"
    layer_norm = True
    tied = True
    act = "gelu_pytorch_tanh"
    eps_key, eps = "norm_epsilon", 1e-5

    def attention_biases(self, config: Mapping[str, Any]) -> tuple[bool, bool]:
        """Everywhere or nowhere, in the MLP too."""
        self.use_bias = bool(config.get("use_bias", True))
        return self.use_bias, self.use_bias

    def read_windows(self, config: Mapping[str, Any], source: str) -> list[int | None]:
        """All layers are local, or none."""
        window = read.integer(config, "sliding_window", source) if config.get("sliding_window") else None
        return [window] * self.num_hidden_layers

    def mlp_tensors(self, t: Tensors, i: int) -> None:
        """Two matrices."""
        n, m = self.hidden_size, self.intermediate_size
        t.matrix("ffn_up", "mlp.c_fc", m, n, self.use_bias)
        t.matrix("ffn_down", "mlp.c_proj", n, m, self.use_bias)
