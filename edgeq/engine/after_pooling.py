"""What is computed once the states of a text's tokens are pooled, or of each before: in NumPy, in f64, as it is
little."""

import math
from typing import TYPE_CHECKING

from edgeq.blocks.reference import decode
from edgeq.container.reader import File
from edgeq.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    F64 = npt.NDArray[np.float64]
    Weights = dict[str, F64]
else:
    Weights = dict

# Classes of torch -> what they are called here
TORCH = {
    "Identity": "",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


def weights_of(file: File, prefix: str) -> Weights:
    """The tensors of a file whose names begin with `prefix`, decoded, by their names."""
    import numpy as np

    found = {}
    for name, info in file.tensors.items():
        if name.startswith(prefix):
            data, rows, columns = file.data(name), info.shape[0], info.shape[-1]
            values = data.view(np.float32) if len(info.shape) == 1 else decode(data, rows, columns, info.type)
            found[name] = values.astype(np.float64)
    return found


def product(weights: Weights, name: str, x: "F64") -> "F64":
    """The matrix `name` times x [columns], or times each row of x, plus its bias if it has one."""
    result: F64 = x @ weights[f"{name}.weight"].T
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def norm(weights: Weights, name: str, x: "F64", eps: float) -> "F64":
    """LayerNorm of x [width], with a bias if it has one."""
    away = x - x.mean()
    result: F64 = away / math.sqrt(float((away * away).mean()) + eps) * weights[f"{name}.weight"]
    return result + weights[f"{name}.bias"] if f"{name}.bias" in weights else result


def activated(x: "F64", kind: str) -> "F64":
    """An activation, by the graph's name of it, of each value; "" changes nothing. UnsupportedError for another."""
    import numpy as np

    if kind not in (*TORCH.values(), "gelu_tanh"):
        raise UnsupportedError(f"the activation {kind!r} is not computed after pooling")
    with np.errstate(over="ignore"):
        if kind == "tanh":
            return np.asarray(np.tanh(x))
        if kind == "relu":
            return np.asarray(np.maximum(x, 0.0))
        if kind == "gelu":
            return np.asarray(0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))))
        if kind == "gelu_tanh":
            return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))
        if kind in ("silu", "sigmoid"):
            gate = 1.0 / (1.0 + np.exp(-x))
            return np.asarray(gate if kind == "sigmoid" else x * gate)
    return x


def sigmoid(x: "npt.NDArray[np.float32]") -> "npt.NDArray[np.float32]":
    """1 / (1 + exp(-x)) of each value."""
    result: npt.NDArray[np.float32] = activated(x.astype("f8"), "sigmoid").astype("f4")
    return result
