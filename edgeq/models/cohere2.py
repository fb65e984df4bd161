"""Command R7B and Command A: Command R with local layers; the global ones have no rotary embedding."""

from edgeq.models.cohere import parallel, read_attention
from edgeq.models.composition import Model
from edgeq.models.config import Config
from edgeq.models.dimensions import read_dimensions
from edgeq.models.windows import by_layer
from edgeq.ops import NO_ROPE

THETA = 10000.0


def compose(config: Config) -> Model:
    """Every fourth layer is global."""
    size = read_dimensions(config)
    attention, pattern = read_attention(config, size.hidden_size, THETA), config.integer("sliding_window_pattern", 4)
    windows = by_layer(config, [(i + 1) % pattern != 0 for i in range(size.num_hidden_layers)])
    mixers = [attention.over(window) if window else attention._replace(rope=NO_ROPE) for window in windows]
    return parallel("cohere2", config, size, attention, mixers, THETA)
