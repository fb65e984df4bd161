"""The tensor types of GGUF, and the block type that holds each here.

Ids, block sizes: ggml.h and ggml-common.h of llama.cpp. This module needs no NumPy.
"""

from dataclasses import dataclass

from edgeq.errors import UnsupportedError


@dataclass(frozen=True)
class GgufType:
    """One tensor type of GGUF.

    name, id      GGUF's
    columns       weights of a block, which lie in one row
    block_bytes   bytes of a block
    held          the block type that holds every weight of it bit for bit here, of NVFP4 nearly; "" where there is none
    halves        where in a block its f16 scales are, as offsets in bytes
    """

    name: str
    id: int
    columns: int
    block_bytes: int
    held: str = ""
    halves: tuple[int, ...] = ()

    @property
    def native(self) -> bool:
        """Whether the same type exists here, so that bits are only re-arranged."""
        return self.held == self.name

    def row_bytes(self, cols: int) -> int:
        """Bytes of a row of `cols` weights. UnsupportedError if blocks do not divide it."""
        if cols % self.columns:
            raise UnsupportedError(f"{self.name} needs rows of a multiple of {self.columns} weights, not {cols}")
        return cols // self.columns * self.block_bytes


GGUF_TYPES: dict[int, GgufType] = {
    t.id: t
    for t in (
        GgufType("F32", 0, 1, 4, "F32"),
        GgufType("F16", 1, 1, 2, "F16", (0,)),
        GgufType("BF16", 30, 1, 2, "BF16"),
        GgufType("Q8_0", 8, 32, 34, "Q8_0", (0,)),
        GgufType("Q4_0", 2, 32, 18, "Q4_0", (0,)),
        GgufType("Q4_1", 3, 32, 20, "Q4_1", (0, 2)),
        GgufType("Q5_0", 6, 32, 22, "Q5_0", (0,)),
        GgufType("Q5_1", 7, 32, 24, "Q5_1", (0, 2)),
        GgufType("Q2_K", 10, 256, 84, "Q2_K", (80, 82)),
        GgufType("Q3_K", 11, 256, 110, "Q3_K", (108,)),
        GgufType("Q4_K", 12, 256, 144, "Q4_K", (0, 2)),
        GgufType("Q5_K", 13, 256, 176, "Q5_K", (0, 2)),
        GgufType("Q6_K", 14, 256, 210, "Q6_K", (208,)),
        GgufType("IQ4_NL", 20, 32, 18, "IQ4_NL", (0,)),
        GgufType("IQ4_XS", 23, 256, 136, "IQ4_XS", (0,)),
        GgufType("MXFP4", 39, 32, 17, "MXFP4"),
        GgufType("TQ2_0", 35, 256, 66, "TQ2_0", (64,)),
        GgufType("Q2_0", 42, 64, 18, "Q2_0", (0,)),
        GgufType("Q1_0", 41, 128, 18, "Q1_0", (0,)),
        # Whose codes and scales a wider type has room for
        GgufType("TQ1_0", 34, 256, 54, "TQ2_0", (52,)),
        GgufType("IQ2_XXS", 16, 256, 66, "IQ12_W", (0,)),
        GgufType("IQ2_XS", 17, 256, 74, "IQ12_W", (0,)),
        GgufType("IQ3_XXS", 18, 256, 98, "IQ3_W", (0,)),
        GgufType("IQ1_S", 19, 256, 50, "IQ12_W", (0,)),
        GgufType("IQ3_S", 21, 256, 110, "IQ3S_W", (0,)),
        GgufType("IQ2_S", 22, 256, 82, "IQ12_W", (0,)),
        GgufType("IQ1_M", 29, 256, 56, "IQ12_W"),
        GgufType("NVFP4", 40, 64, 36, "NVFP4_W"),
        # Known, so that a message can name them
        GgufType("I8", 24, 1, 1),
        GgufType("I16", 25, 1, 2),
        GgufType("I32", 26, 1, 4),
        GgufType("I64", 27, 1, 8),
        GgufType("F64", 28, 1, 8),
    )
}

BY_NAME = {t.name: t for t in GGUF_TYPES.values()}
