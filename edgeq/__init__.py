"""edgeq: run block-quantized language models on an ordinary CPU.

    import edgeq
    model = edgeq.load("model.eqf")
    for piece in model.generate("Once upon a time", max_tokens=64):
        print(piece, end="", flush=True)

Public names load what they need on first use: `import edgeq` itself imports neither NumPy nor Numba.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EdgeqError", "Model", "__version__", "convert", "load"]

if TYPE_CHECKING:
    from edgeq.conversion import convert
    from edgeq.errors import EdgeqError
    from edgeq.model import Model, load

_HOMES = {
    "EdgeqError": "edgeq.errors",
    "Model": "edgeq.model",
    "load": "edgeq.model",
    "convert": "edgeq.conversion",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeq' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
