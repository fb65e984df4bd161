"""Whether the head is the embedding: what a checkpoint stores decides, whatever its config.json says."""

from typing import Any

from edgeq.checkpoints import Checkpoint
from edgeq.models import Architecture, architecture
from edgeq.models import config as read
from edgeq.models.tensors import settled
from edgeq.quantize.chunks import Sources

HEAD = "output."


def settle_head(checkpoint: Checkpoint) -> tuple[dict[str, Any], Architecture, list[str]]:
    """(configuration, its model, notes): config.json, changed where the checkpoint's head contradicts it.

    A head that is stored with other values than the embedding is used; one that is not stored is the embedding, unless
    the checkpoint lacks more than that; of a decoder alone it is none at all. Raises what `architecture` does.
    """
    config, source = checkpoint.config, f"{checkpoint.source}: config.json"
    model = architecture(config, source)
    sources = Sources(checkpoint, model)
    embedding = model.tensors["token_embd.weight"]
    stored = sources.name(embedding.parts[0].source)
    if embedding.instead:
        head = sources.name(embedding.instead[0].source)
        if stored is None or head is None or checkpoint.same(stored, head):
            return config, model, []
        tied, note = False, f"{head} differs from {stored}: it is the head, though config.json says that they are one"
    else:
        tensors = settled(model.tensors, lambda name: sources.name(name) is not None)
        missing = [name for name, one in tensors.items() if any(not sources.name(part.source) for part in one.parts)]
        if not missing or not all(name.startswith(HEAD) for name in missing):
            return config, model, []
        head = tensors[missing[0]].parts[0].source
        tied, note = True, f"no {head} is stored: {stored} is the head too, though config.json says that it is not"
        if read.is_decoder_alone(config):
            note = (
                f"no {head} is stored, as for a {config['architectures'][0]}: the model embeds texts, and writes none"
            )
            config = {**config, read.BARE: True}
    config = read.tied(config, tied)
    return config, architecture(config, source), [note]
