"""Which matrices of a checkpoint are stored quantized, by the method that its config.json names."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeq.checkpoints import (
    auto_round,
    awq,
    bitnet_packed,
    bitsandbytes,
    compressed_tensors,
    fp8,
    gemma_packed,
    gptq,
    hqq,
    mlx,
    modelopt,
    mxfp4,
    quark,
    torchao,
)
from edgeq.checkpoints.files import Files
from edgeq.checkpoints.packed import Packed
from edgeq.errors import UnsupportedError

# quantization_config.quant_method -> what finds the matrices
METHODS: dict[str, Callable[[Files, Mapping[str, Any], str], list[Packed]]] = {
    "gptq": gptq.find,
    "awq": awq.find,
    "auto-round": auto_round.find,
    "intel/auto-round": auto_round.find,
    "compressed-tensors": compressed_tensors.find,
    "bitsandbytes": bitsandbytes.find,
    "mxfp4": mxfp4.find,
    "fp8": fp8.find,
    "fbgemm_fp8": fp8.find,
    "gemma": gemma_packed.find,
    "mlx": mlx.find,
    "bitnet": bitnet_packed.find,
    "modelopt": modelopt.find,
    "modelopt_fp4": modelopt.find,
    "quark": quark.find,
    "torchao": torchao.find,
    "hqq": hqq.find,
}
# Scales of quantized activations, which edgeq quantizes in its own way
OF_ACTIVATIONS = ("input_scale", "input_zero_point", "input_global_scale", "activation_scale")


def packed_matrices(files: Files, config: Mapping[str, Any], source: str) -> dict[str, Packed]:
    """The quantized matrices by the names that they would have unquantized, `...weight`.

    config: of the model, config.json. UnsupportedError, one line, for a method or a layout that is unknown here.
    """
    quantization = config.get("quantization_config") or config.get("compression_config") or config.get("quantization")
    if not quantization:
        return {}
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    if method is None and quantization == config.get("quantization"):  # mlx-lm says the same twice, and no method
        method = "mlx"
    if not isinstance(method, str) or method not in METHODS:
        raise UnsupportedError(
            f"{source}: is already quantized (method {method!r}), which is not supported: convert the original "
            f"checkpoint, or one of {', '.join(METHODS)}"
        )
    found = {matrix.name: matrix for matrix in METHODS[method](files, quantization, source)}
    for name, matrix in found.items():
        beside = [f"{name.removesuffix('weight')}{part}" for part in OF_ACTIVATIONS]
        matrix.stored += [tensor for tensor in beside if tensor in files.tensors]
    return found
