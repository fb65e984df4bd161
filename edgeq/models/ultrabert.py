"""UltraBERT: EuroBERT, two of three of whose layers see a window around each token, and are rotated by a theta of their
own."""

from dataclasses import replace

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.eurobert import encoder
from edgeq.models.rope_scaling import whole_rope
from edgeq.models.windows import KINDS, by_layer

THETA, LOCAL_THETA = 2560000.0, 10000.0
REACH = 128


def compose(config: Config) -> Model:
    """`sliding_window` is how far a token sees to either side. transformers writes names that begin with its own."""
    size = read_dimensions(config)
    layers, head_dim = size.num_hidden_layers, read_heads(config, size.hidden_size).head_dim
    config = newer(config, layers)
    reach = config.integer("sliding_window", REACH)
    windows = by_layer(config.changed(sliding_window=reach + 1), [False] * layers)
    whole = whole_rope(config, head_dim, THETA)
    local = whole_rope(config, head_dim, LOCAL_THETA, "sliding_attention")
    model = encoder("ultrabert", config, [local if window else whole for window in windows], windows, 1e-6)
    return replace(model, prefixes=("model.", "ultrabert.", ""))


def newer(config: Config, layers: int) -> Config:
    """With `layer_types`; and with the keys of newer checkpoints, of one that has a window and a theta for each layer:
    the first window counts, and the last theta of each kind."""
    windows, kinds, thetas = config.get("attention_windows"), config.get("layer_types"), config.get("rope_theta")
    if windows is not None:
        if not isinstance(windows, list):
            raise config.malformed(f"attention_windows is {shown(windows)}, a list of {layers} is needed")
        reach = next((one for one in windows if one), config.get("sliding_window", REACH))
        config = config.changed(sliding_window=reach)
        kinds = ["sliding_attention" if one else "full_attention" for one in windows] if kinds is None else kinds
    if kinds is None:
        kinds = ["sliding_attention" if (i + 1) % 3 else "full_attention" for i in range(layers)]
    config = config.changed(layer_types=config.layer_types(layers, KINDS, kinds))
    if isinstance(thetas, list) and config.get("rope_parameters") is None:
        usual = {"sliding_attention": LOCAL_THETA, "full_attention": THETA}
        usual |= dict(zip(config.get("layer_types"), thetas, strict=False))
        config = config.changed(rope_parameters={kind: {"rope_theta": theta} for kind, theta in usual.items()})
    return config
