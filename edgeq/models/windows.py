"""Which layers' attention looks back over a window only."""

from edgeq.models.config import Config

Windows = list[int | None]  # of each layer the positions that it sees, None for all
KINDS = ("full_attention", "sliding_attention")


def by_layer(config: Config, usual: list[bool]) -> Windows:
    """`layer_types` says which layers are local; without it those that are true in `usual`."""
    layers = len(usual)
    if config.get("layer_types") is None:
        local = usual
    else:
        local = [kind == "sliding_attention" for kind in config.layer_types(layers, KINDS)]
    if not any(local):
        return [None] * layers
    if config.get("sliding_window", 4096) is None:
        raise config.malformed("sliding_window is null, and there are local layers")
    window = config.integer("sliding_window", 4096)
    return [window if here else None for here in local]


def everywhere(config: Config) -> int | None:
    """That of all layers, None where they see every position."""
    return config.integer("sliding_window") if config.get("sliding_window") else None
