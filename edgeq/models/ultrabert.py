"""UltraBERT: EuroBERT, two of three of whose layers see a window around each token, and are rotated by a theta of their
own."""

from edgeq.models.composition import Model
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.eurobert import encoder
from edgeq.models.rope_scaling import rope
from edgeq.models.windows import by_layer

THETA, LOCAL_THETA = 2560000.0, 10000.0


def compose(config: Config) -> Model:
    """`sliding_window` is how far a token sees to either side; in older checkpoints each layer has its own number, and
    its theta."""
    size = read_dimensions(config)
    layers, head_dim = size.num_hidden_layers, read_heads(config, size.hidden_size).head_dim
    given, thetas = config.get("attention_windows"), config.get("rope_theta")
    if isinstance(given, list):
        reach = next((one for one in given if one), 128)
        kinds = ["sliding_attention" if one else "full_attention" for one in given]
        config = config.usually(sliding_window=reach, layer_types=kinds)
    if isinstance(thetas, list):
        raise config.unsupported(f"a rope_theta for each layer, {shown(thetas)}, is not supported: save it again")
    reach = config.integer("sliding_window", 128)
    windows = by_layer(config.changed(sliding_window=reach + 1), [(i + 1) % 3 != 0 for i in range(layers)])
    whole = rope(config, head_dim, theta=THETA)
    local = rope(config, head_dim, theta=LOCAL_THETA, kind="sliding_attention")
    return encoder("ultrabert", config, [local if window else whole for window in windows], windows, 1e-6)
