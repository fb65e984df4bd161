"""BitNet b1.58: Llama with a norm before each output projection; its weights are -1, 0 or 1 times a scale per matrix
(arXiv:2402.17764)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeq.errors import UnsupportedError
from edgeq.models import config as read
from edgeq.models import llama
from edgeq.models.tensors import Tensors
from edgeq.ops import Graph, Value


class Model(llama.Model):
    """BitNet, its weights as numbers: ternary ones, or those from training, which are rounded to ternary ones."""

    name = "bitnet"
    act = "relu2"
    eps = 1e-5

    def read_more(self, config: Mapping[str, Any], source: str) -> None:
        """Whether the weights are those from training."""
        quantization = config.get("quantization_config") or {}
        self.rounded = bool(quantization)
        if not self.rounded:
            return
        online = isinstance(quantization, Mapping) and quantization.get("quantization_mode") == "online"
        if not online or quantization.get("linear_class") != "autobitlinear" or quantization.get("use_rms_norm"):
            raise UnsupportedError(
                f"{source}: quantization_config {read.shown(quantization)} is not supported: convert the checkpoint "
                "whose weights are not packed (its name ends in -bf16)"
            )

    def list_tensors(self, t: Tensors) -> None:
        """The matrices of the layers are ternary."""
        super().list_tensors(t)
        for name, tensor in t.items():
            if self.rounded and name.startswith("blk.") and len(tensor.shape) == 2:
                t[name] = replace(tensor, ternary=True)

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
