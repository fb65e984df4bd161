"""How far what each layer gives is from what it gives in a reference."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeq.engine.model import Model
from edgeq.evaluate.texts import Chunk
from edgeq.runtime.session import Session

# Matrices that read what the layer before gives, after a norm: the first that a layer has is looked at.
READERS = ("attn_q.weight", "attn_qkv.weight", "shortconv.in_proj.weight")

F32 = npt.NDArray[np.float32]


def layer_errors(model: Model, reference: Model, chunks: Sequence[Chunk]) -> list[float]:
    """Of each layer's output over all tokens of the chunks, as the next layer reads it: the sum of squared differences
    over that of the reference's squares. Empty for models whose layers are not alike.

    It holds what the layers before have lost, too.
    """
    names = _readers(model)
    if not names or names != _readers(reference) or not model.session.model.writes_text:
        return []
    size = max(len(chunk.ids) for chunk in chunks)
    differences, squares = np.zeros(len(names)), np.zeros(len(names))
    with _session(model, names, size) as one, _session(reference, names, size) as other:
        for chunk in chunks:
            for number, (found, exact) in enumerate(
                zip(_outputs(one, names, chunk), _outputs(other, names, chunk), strict=True)
            ):
                differences[number] += np.square(found - exact, dtype=np.float64).sum()
                squares[number] += np.square(exact, dtype=np.float64).sum()
    errors: list[float] = (differences / squares).tolist()
    return errors


def _session(model: Model, names: Sequence[str], size: int) -> Session:
    session = model.session
    announce = session.program.announce
    return Session(
        model.file,
        context=size,
        threads=session.threads,
        kv=session.kv,
        states=True,
        taps=names[1:],
        announce=announce,
    )


def _readers(model: Model) -> list[str]:
    """Of each layer in order the matrix that is looked at; empty where one has none."""
    layers = {int(found[1]) for name in model.file.tensors if (found := re.match(r"blk\.(\d+)\.", name))}
    names = []
    for layer in sorted(layers):
        own = [name for reader in READERS if (name := f"blk.{layer}.{reader}") in model.file.tensors]
        if not own:
            return []
        names.append(own[0])
    return names


def _outputs(session: Session, names: Sequence[str], chunk: Chunk) -> list[F32]:
    """What the layers give, f32 [tokens, hidden size] each: what the next one reads, and the last states."""
    parts: dict[str, list[F32]] = {name: [] for name in names[1:]}
    session.rewind(0)
    states = session.eval(chunk.ids, all_logits=True, tapped=lambda name, x: parts[name].append(x.copy()))
    return [*(np.concatenate(part) for part in parts.values()), states]
