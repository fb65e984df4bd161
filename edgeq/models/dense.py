"""What follows the pooling of a text's states: sentence-transformers' modules of one matrix each."""

from typing import NamedTuple

from edgeq.models.config import Config, shown
from edgeq.models.matrix import Matrix
from edgeq.models.tensors import Tensors

KEY = "edgeq_dense"  # of ours in a configuration: a list of the modules, as checkpoints/sentence_modules.py gives them
LARGEST = 1 << 24


class Dense(NamedTuple):
    """activation(matrix x); the activation by the name of torch's class."""

    matrix: Matrix
    activation: str

    def tensors(self, t: Tensors) -> None:
        """The matrix."""
        self.matrix.tensors(t)


def read_dense(config: Config, width: int) -> tuple[Dense, ...]:
    """The modules behind the pooling of states of `width` values. CheckpointError for sizes that do not fit together,
    UnsupportedError for what is not computed."""
    found: list[Dense] = []
    for given in config.get(KEY) or ():
        module = config.within(given)
        module.refuse(module_input_name="sentence_embedding", module_output_name="sentence_embedding")
        module.refuse(use_residual=False)
        rows, columns = (module.integer(f"{name}_features", most=LARGEST) for name in ("out", "in"))
        if columns != width:
            raise config.malformed(f"the module {shown(given.get('folder'))} reads {columns} values, there are {width}")
        place, source = module.integer("place", most=999), str(module.get("folder"))
        matrix = Matrix(f"dense_{place}", f"{source}.linear", rows, columns, module.flag("bias", True))
        activation = str(module.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
        found.append(Dense(matrix, activation))
        width = rows
    return tuple(found)
