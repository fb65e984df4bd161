"""edgeq: run block-quantized language models on an ordinary CPU.

    import edgeq
    model = edgeq.load("model.eqf")
    for piece in model.generate("Once upon a time", max_tokens=64):
        print(piece, end="", flush=True)

Public names load what they need on first use: `import edgeq` itself imports neither NumPy nor Numba.
"""

from edgeq.version import VERSION as __version__

# As type checkers know it. To import it from typing would take four times as long as all that the command does until
# Ctrl-C ends it without a word.
TYPE_CHECKING = False

__all__ = [
    "Answer",
    "Answers",
    "ChatAnswer",
    "CheckpointError",
    "ChecksumError",
    "ContextError",
    "Continuation",
    "EdgeqError",
    "FormatError",
    "Generated",
    "KernelError",
    "MemoryLimitError",
    "Model",
    "NotFoundError",
    "OutputError",
    "Request",
    "Sampling",
    "TemplateError",
    "Timings",
    "TokenLogprob",
    "TokenizerError",
    "ToolCall",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "calibrate",
    "compare",
    "convert",
    "load",
    "read_calibration",
]

if TYPE_CHECKING:
    from edgeq.conversion.calibrating import calibrate
    from edgeq.conversion.comparing import compare
    from edgeq.conversion.conversion import convert
    from edgeq.decode.sampler_steps import Sampling
    from edgeq.engine.answer import Answer, Generated, TokenLogprob
    from edgeq.engine.answers import Answers
    from edgeq.engine.chat_answer import ChatAnswer, ToolCall
    from edgeq.engine.model import Model
    from edgeq.engine.scoring import Continuation
    from edgeq.engine.timings import Timings
    from edgeq.errors import (
        CheckpointError,
        ChecksumError,
        ContextError,
        EdgeqError,
        FormatError,
        KernelError,
        MemoryLimitError,
        NotFoundError,
        OutputError,
        TemplateError,
        TokenizerError,
        UnsupportedError,
        UsageError,
    )
    from edgeq.loading import load
    from edgeq.quantize.calibrated import Request
    from edgeq.quantize.imatrix import read_calibration

_HOMES = {
    "Answer": "edgeq.engine.answer",
    "Answers": "edgeq.engine.answers",
    "ChatAnswer": "edgeq.engine.chat_answer",
    "ToolCall": "edgeq.engine.chat_answer",
    "Generated": "edgeq.engine.answer",
    "TokenLogprob": "edgeq.engine.answer",
    "Sampling": "edgeq.decode.sampler_steps",
    "Continuation": "edgeq.engine.scoring",
    "Model": "edgeq.engine.model",
    "load": "edgeq.loading",
    "calibrate": "edgeq.conversion.calibrating",
    "compare": "edgeq.conversion.comparing",
    "read_calibration": "edgeq.quantize.imatrix",
    "Request": "edgeq.quantize.calibrated",
    "convert": "edgeq.conversion.conversion",
    "Timings": "edgeq.engine.timings",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "edgeq.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
