"""Nemotron-H and Nemotron 3: each layer is one of Mamba-2, attention without rotary embedding, an MLP of squared ReLU
(arXiv:2504.03624), or experts of such."""

from edgeq.models.composition import Embedding, Head, Model, embedding_and_head
from edgeq.models.config import Config, shown
from edgeq.models.dimensions import read_dimensions, read_heads
from edgeq.models.feed_forward import ExpertMatrix, FeedForward, MixtureOfExperts, SharedMLP, plain
from edgeq.models.latent_experts import LatentExperts
from edgeq.models.layers import Layer, Nothing, Once
from edgeq.models.mamba_mixer import Mamba2, MambaShape, checked_shape
from edgeq.models.matrix import Matrix
from edgeq.models.mixers import Attention, Mixer, output, separate
from edgeq.models.norms import RMSNorm
from edgeq.models.sigmoid_mixture import expert_count, read_router
from edgeq.models.tensors import Fused
from edgeq.ops import NO_ROPE

# By their letters in older configurations
KINDS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
OLDER = {"mamba": "linear_attention", "attention": "full_attention"}
# Keys of its layers of Mamba-2 -> what some configurations call them; this counts
SPELLED = {"n_groups": "mamba_n_groups", "conv_kernel": "mamba_d_conv", "use_conv_bias": "mamba_conv_bias"}


def compose(config: Config) -> Model:
    """The kinds of its layers are its number of layers."""
    kinds = read_kinds(config)
    size = read_dimensions(config.changed(num_hidden_layers=len(kinds)))
    n, m, eps = size.hidden_size, size.intermediate_size, config.number("layer_norm_epsilon", 1e-5)
    heads = read_heads(config.usually(num_key_value_heads=8), n, head_dim=128)
    config.refuse(sliding_window=None)
    attention = Attention(
        separate(n, heads, source="mixer.{}_proj"), output(n, heads, source="mixer.o_proj"), heads, NO_ROPE
    )
    activation, bias = config.activation("mlp_hidden_act", "relu2"), config.flag("mlp_bias")
    mixers: dict[str, Mixer | FeedForward] = {
        "linear_attention": read_mixer(config, n, eps),
        "full_attention": attention,
        "mlp": plain(n, m, activation, "mixer.up_proj", "mixer.down_proj", bias),
    }
    settings = dict[str, float]()
    if "moe" in kinds:
        mixers["moe"] = mixture = read_mixture(config, n, bias)
        settings = mixture_settings(mixture)
    norms = Once(RMSNorm("attn_norm", "norm", n, eps))
    embedding, head = embedding_and_head(size, config.flag("tie_word_embeddings"), embedding="model.embeddings")
    return Model(
        "nemotron_h",
        size,
        attention,
        Embedding(embedding),
        [Layer(norms, mixers[kind], Nothing()) for kind in kinds],
        Head(RMSNorm("output_norm", "model.norm_f", n, eps), head),
        prefixes=("model.", "backbone.", ""),
        settings=settings,
    )


def read_mixer(config: Config, n: int, eps: float) -> Mamba2:
    """Steps are as they come: its code has a least one in prompts, but not for the tokens that follow."""
    config.refuse(mamba_hidden_act="silu")
    config = config.changed(**{key: config.get(name) for key, name in SPELLED.items() if name in config})
    shape = MambaShape(
        config.integer("mamba_num_heads", 128, most=65_536),
        config.integer("mamba_head_dim", 64, most=65_536),
        config.integer("n_groups", 8, most=65_536),
        config.integer("ssm_state_size", 128, most=65_536),
        config.integer("conv_kernel", 4, most=64),
    )
    bias = config.flag("use_bias")
    checked = checked_shape(config, shape, shape.values)
    return Mamba2(n, checked, "mixer", bias, config.flag("use_conv_bias", True), bias, eps)


def read_mixture(config: Config, n: int, bias: bool) -> SharedMLP:
    """Experts without a gate, which may work on fewer values than the residual stream has, and an MLP beside them."""
    config.refuse(mlp_hidden_act="relu2")
    count = expert_count(config, 8)
    m, latent = config.integer("moe_intermediate_size", 7688), config.get("moe_latent_size")
    wide = n if latent is None else config.integer("moe_latent_size")
    up, down = (f"mixer.experts.{{}}.{part}_proj" for part in ("up", "down"))
    matrices = (
        ExpertMatrix("ffn_up_exps", count, m, wide, Fused(m), up, ("mixer.experts.up_proj",)),
        ExpertMatrix("ffn_down_exps", count, wide, m, Fused(wide), down, ("mixer.experts.down_proj",)),
    )
    chosen = read_router(config, n, matrices, source="mixer.gate", usual=(8, 2))._replace(activation="relu2")
    shared = plain(
        n,
        config.integer("moe_shared_expert_intermediate_size", 7688),
        "relu2",
        "mixer.shared_experts.up_proj",
        "mixer.shared_experts.down_proj",
        bias,
        suffix="_shexp",
    )
    if latent is None:
        return SharedMLP(chosen, shared)
    into = Matrix("ffn_latent_down", "mixer.fc1_latent_proj", wide, n, bias)
    return SharedMLP(
        LatentExperts(chosen, into, Matrix("ffn_latent_up", "mixer.fc2_latent_proj", n, wide, bias)), shared
    )


def mixture_settings(mixture: SharedMLP) -> dict[str, float]:
    """What GGUF says of the experts."""
    experts = routed(mixture)
    return experts.settings("n_routed_experts") | {
        "moe_intermediate_size": experts.width,
        "moe_shared_expert_intermediate_size": mixture.shared.up.rows,
        "routed_scaling_factor": experts.factor,
    }


def routed(mixture: SharedMLP) -> MixtureOfExperts:
    """The experts of such a layer."""
    experts = mixture.experts.experts if isinstance(mixture.experts, LatentExperts) else mixture.experts
    assert isinstance(experts, MixtureOfExperts)
    return experts


def read_kinds(config: Config) -> list[str]:
    """The kind of each layer, by names or by letters. UnsupportedError for others than those that are computed."""
    given = config.get("layers_block_type", config.get("layer_types"))
    pattern = config.get("hybrid_override_pattern")
    if given is None and isinstance(pattern, str):
        given = [KINDS.get(letter, letter) for letter in pattern]
    if not isinstance(given, list) or not given:
        raise config.malformed(f"layers_block_type is {shown(given)}, a list of the layers' kinds is needed")
    kinds = [OLDER.get(kind, kind) if isinstance(kind, str) else kind for kind in given]
    return config.layer_types(len(kinds), tuple(KINDS.values()), kinds)
