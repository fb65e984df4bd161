"""Low-rank adapters over a frozen rounded base (LoRA, arXiv:2106.09685; QLoRA, arXiv:2305.14314): trained beside the
bits of the file, then merged into the weights and encoded again, or saved as the `peft` library has them.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeq.errors import UsageError
from edgeq.qat.grid import Grid
from edgeq.qat.rounded_layers import QatLinear, Rounding, encoded_grid
from edgeq.system.output import write_file

STRENGTH = 2  # lora_alpha by rank: what the product of both factors is multiplied with


class Adapter(nn.Module):
    """What is added to a linear layer: f32 `down` [rank, inputs], drawn, and `up` [outputs, rank], zero at first."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.down = nn.Parameter(torch.empty(rank, layer.in_features, device=layer.weight.device))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank, device=layer.weight.device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up) * float(STRENGTH)

    def change(self) -> Tensor:
        """What it adds to the layer's weight, f32 [outputs, inputs]."""
        return self.up @ self.down * float(STRENGTH)


def add_adapters(model: nn.Module, rank: int) -> None:
    """Freeze a model that is prepared, and give its linear layers adapters, but for the head."""
    if rank < 1:
        raise UsageError(f"adapters of rank {rank} cannot work: give at least 1")
    for weight in model.parameters():
        weight.requires_grad_(False)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for layer in model.modules():
        if isinstance(layer, QatLinear) and layer is not head:
            layer.adapter = Adapter(layer, rank)


def merge(model: nn.Module) -> nn.Module:
    """Add the adapters to the weights, which are encoded again, each matrix in its type; the same model, without them.

    Raises UsageError for a model without adapters.
    """
    for _, layer in _adapted(model):
        with torch.no_grad():
            layer.weight.copy_(layer.rounding(layer.weight) + layer.adapter.change())
        layer.adapter = None
        rounding: Rounding = layer.rounding
        for i, (rows, piece) in enumerate(zip(rounding.rows, rounding.pieces, strict=True)):
            if isinstance(piece, Grid):
                weight = layer.weight.detach()
                weight = weight if rows is None else weight[rows.to(weight.device)]
                rounding.pieces[i] = encoded_grid(weight, piece.bt.name, learned=False).to(weight.device)
    return model


def save_adapters(model: nn.Module, folder: str | os.PathLike[str], base: str | None = None) -> None:
    """Write the adapters as a folder of the `peft` library: adapter_config.json and adapter_model.safetensors.

    `base`: of what model they are, by default what this one was loaded from. Raises UsageError for a model without
    adapters, OutputError if a file cannot be written.
    """
    from safetensors.torch import save

    tensors, names, rank = dict[str, Tensor](), set[str](), 0
    for name, layer in _adapted(model):
        names.add(name.rpartition(".")[2])
        rank = layer.adapter.rank
        for letter, factor in (("A", layer.adapter.down), ("B", layer.adapter.up)):
            tensors[f"base_model.model.{name}.lora_{letter}.weight"] = factor.detach().cpu().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or getattr(model, "name_or_path", ""),
        "r": rank,
        "lora_alpha": STRENGTH * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted(names),
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_file(Path(folder) / "adapter_model.safetensors", save(tensors, {"format": "pt"}))
    write_file(Path(folder) / "adapter_config.json", json.dumps(config, indent=2).encode())


def _adapted(model: nn.Module) -> Iterator[tuple[str, QatLinear]]:
    """The layers with adapters, by name. UsageError where there are none."""
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, QatLinear) and layer.adapter]
    if not found:
        raise UsageError(f"{type(model).__name__}: has no adapters: prepare it with `adapters`")
    yield from found
