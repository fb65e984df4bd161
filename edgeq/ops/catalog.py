"""Every kernel that the engine can ask for, by name. Imports neither Numba nor llvmlite."""

from collections.abc import Mapping, Sequence

from edgeq import ops
from edgeq.blocks.table import BLOCK_TYPES
from edgeq.kernels.layout import heads_per_tile
from edgeq.simd.isa import Isa

WITHOUT_VARIANTS = ("copy_rows", "given_rows", "head_norm", "layer_norm", "pack", "positions", "short_conv", "silu_mul")
RECURRENT = (
    *("causal_conv", "channel_delta", "delta_net", "gated_norm", "gated_recurrence", "selective_scan"),
    "state_space",
)

# Of models that many people run: block types, those that GGUF's recipes fall back to among them, and how many query
# heads share a key/value head.
COMMON_TYPES = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K", "Q5_K", "Q6_K")
COMMON_GROUPS = (1, 2, 3, 4, 6, 7, 8)


def variants(isa: Isa) -> dict[str, list[str]]:
    """The variants of every family of kernels: to run a model of any shape, to convert one, to measure the machine."""
    return {
        **{family: list(of(isa)) for family, of in ops.kernels().items()},
        "encode": [name + how for name, bt in BLOCK_TYPES.items() if bt.quantized for how in ("", "-weighted")],
        "mend": [name for name, bt in BLOCK_TYPES.items() if bt.quantized],
        "rearrange": ["to-panels", "to-blocks"],
        "execute": ["publish", "lead", "serve"],
        "probe": ["read", "dot-4", "dot-5", "dot-6", "dot-8"],
    }


def names(isa: Isa) -> list[str]:
    """Every kernel, as `family:variant`."""
    return _names(variants(isa))


def _names(found: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{family}:{variant}".rstrip(":") for family, variants in found.items() for variant in variants]


def common(isa: Isa) -> list[str]:
    """The kernels of common models: these are compiled where edgeq is installed, so it must not take long.

    They run most of what is not a mixture of experts, over a KV cache of f16, import a GGUF file, and measure the
    machine.
    """
    every = variants(isa)
    tiles = {heads_per_tile(group, 1, isa.tile) for group in COMMON_GROUPS}
    chosen = {
        "matmul": COMMON_TYPES,
        "embedding": COMMON_TYPES,
        "attention": [f"{heads}-f16" for heads in sorted(tiles)],
        "rope": ("f16",),
        "activation": ("gelu", "gelu-mul", "gelu_tanh", "gelu_tanh-mul"),
        "rearrange": ("to-panels",),
        "probe": ("read", "dot-4"),
        **{family: every[family] for family in ("norm", "elementwise", "execute", *WITHOUT_VARIANTS, *RECURRENT)},
    }
    return _names({family: chosen[family] for family in every if family in chosen})
