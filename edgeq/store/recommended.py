"""Models that are worth a try, by short names: for each size of machine one that is good for it.

The figures are those of the models' own pages and configurations. What a model needs of memory follows from them, see
`Recommended.memory`.
"""

from dataclasses import dataclass

BITS = 5.0  # per weight in Q4_K_M, most of whose embeddings are Q6_K
CONTEXT = 4096  # positions that are reserved where nobody asks for more
OVERHEAD = 150 << 20  # Python, NumPy, the tokenizer, buffers


@dataclass(frozen=True)
class Recommended:
    """One row.

    name        what can be typed: family, or family:size
    repository  of the Hub
    parameters  in millions
    kv          bytes of the KV cache of one position, at f16
    gated       whether its licence must be accepted on the Hub first
    """

    name: str
    repository: str
    parameters: int
    kv: int
    gated: bool = False

    @property
    def weights(self) -> int:
        """Bytes of the weights as Q4_K_M: parameters x BITS / 8."""
        return int(self.parameters * 1e6 * BITS / 8)

    @property
    def memory(self) -> int:
        """Bytes needed to run it: weights, the KV cache of CONTEXT positions, OVERHEAD."""
        return self.weights + CONTEXT * self.kv + OVERHEAD

    @property
    def download(self) -> int:
        """Bytes to fetch: two per parameter."""
        return int(self.parameters * 2e6)


TABLE = (
    Recommended("smollm2:135m", "HuggingFaceTB/SmolLM2-135M-Instruct", 135, 23040),
    Recommended("gemma3:270m", "google/gemma-3-270m-it", 268, 18432, gated=True),
    Recommended("lfm2:350m", "LiquidAI/LFM2-350M", 354, 12288),
    Recommended("smollm2:360m", "HuggingFaceTB/SmolLM2-360M-Instruct", 362, 40960),
    Recommended("qwen2.5:0.5b", "Qwen/Qwen2.5-0.5B-Instruct", 494, 12288),
    Recommended("qwen3:0.6b", "Qwen/Qwen3-0.6B", 596, 114688),
    Recommended("gemma3:1b", "google/gemma-3-1b-it", 1000, 26624, gated=True),
    Recommended("lfm2:1.2b", "LiquidAI/LFM2-1.2B", 1170, 12288),
    Recommended("llama3.2:1b", "meta-llama/Llama-3.2-1B-Instruct", 1236, 32768, gated=True),
    Recommended("qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct", 1544, 28672),
    Recommended("smollm2:1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct", 1711, 196608),
    Recommended("qwen3:1.7b", "Qwen/Qwen3-1.7B", 1721, 114688),
    Recommended("granite3.3:2b", "ibm-granite/granite-3.3-2b-instruct", 2534, 81920),
    Recommended("smollm3:3b", "HuggingFaceTB/SmolLM3-3B", 3075, 73728),
    Recommended("qwen2.5:3b", "Qwen/Qwen2.5-3B-Instruct", 3086, 36864),
    Recommended("llama3.2:3b", "meta-llama/Llama-3.2-3B-Instruct", 3213, 114688, gated=True),
    Recommended("phi4-mini:3.8b", "microsoft/Phi-4-mini-instruct", 3836, 131072),
    Recommended("qwen3:4b", "Qwen/Qwen3-4B", 4022, 147456),
    Recommended("qwen2.5:7b", "Qwen/Qwen2.5-7B-Instruct", 7616, 57344),
    Recommended("qwen3:8b", "Qwen/Qwen3-8B", 8191, 147456),
    Recommended("qwen2.5:14b", "Qwen/Qwen2.5-14B-Instruct", 14770, 196608),
)
USUAL = {  # which size a family's name alone means: one for any laptop
    "smollm2": "smollm2:1.7b",
    "gemma3": "gemma3:1b",
    "lfm2": "lfm2:1.2b",
    "qwen2.5": "qwen2.5:1.5b",
    "qwen3": "qwen3:1.7b",
    "llama3.2": "llama3.2:1b",
    "granite3.3": "granite3.3:2b",
    "smollm3": "smollm3:3b",
    "phi4-mini": "phi4-mini:3.8b",
}


def find(name: str) -> Recommended | None:
    """The row of a short name, in whatever case; None where there is none."""
    name = name.lower()
    return next((row for row in TABLE if row.name == USUAL.get(name, name)), None)


def fitting(memory: int) -> list[Recommended]:
    """The rows that `memory` bytes hold, the smallest first."""
    return [row for row in TABLE if row.memory <= memory]
