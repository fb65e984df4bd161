"""AutoRound checkpoints (arXiv:2309.05516): packed as GPTQ's or AWQ's, `packing_format` says which."""

from collections.abc import Mapping
from typing import Any

from edgeq.checkpoints import awq, gptq
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import Packed
from edgeq.errors import UnsupportedError


def find(files: Files, config: Mapping[str, Any], source: str) -> list[Packed]:
    """The matrices of a checkpoint with `quantization_config` `config`. UnsupportedError for another packing."""
    layout = str(config.get("packing_format") or config.get("backend") or "auto_round:auto_gptq")
    if "awq" in layout:
        return awq.find(files, {**config, "version": "gemm"}, source)
    if "gptq" in layout:
        return gptq.find(files, {**config, "checkpoint_format": "gptq"}, source)
    raise UnsupportedError(
        f"{source}: AutoRound's packing {layout!r} is not supported; "
        "'auto_round:auto_gptq' and 'auto_round:auto_awq' are"
    )
