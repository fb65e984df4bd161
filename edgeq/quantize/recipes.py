"""Recipes: which block type each tensor of a model gets.

The mixes are llama.cpp's of the same names: the head, and in the `_M` recipes the value projection and the
down projection of the layers where errors weigh most, get more bits than the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from edgeq.blocks.table import SUPER_BLOCK, block_type
from edgeq.errors import UnsupportedError, UsageError
from edgeq.models.image_tower import is_of_images
from edgeq.models.rows_in import AXES

# Small, and errors in them weigh much: learned positions, types of tokens, what routes tokens to experts or gates a
# shared one, the taps of short convolutions, what recurrent layers forget and learn by, and what weighs AltUp's streams
KEPT = {"position_embd", *AXES, "token_types", "ffn_gate_inp", "ffn_gate_inp_shexp", "conv"}
KEPT |= {"rec_conv1d", "ssm_conv1d", "ssm_a", "ssm_alpha", "ssm_beta"}
KEPT |= {"altup_router", "altup_predict_coef", "altup_correct_coef"}
# Latent and disentangled attention's: small, and each head has a part of its own to lose
OF_HEADS = {"attn_k_b", "attn_v_b", "attn_pos_k", "attn_pos_q", "rec_take", "rec_forget"}
# What RWKV-7 forgets and learns by: small, and errors grow with a text
OF_HEADS |= {f"time_mix_{kind}{part}" for kind in "wavg" for part in "12"}
FOR_HEADS = "Q8_0"
FOR_IMAGES = "Q8_0"  # of what a model sees with, where others are quantized: no calibration knows what that reads
AFTER_POOLING = ("cls.", "dense_")  # what names of matrices begin with that see one row per text: kept as well

# In GGUF, instead of a type whose super-blocks do not divide the rows: what llama.cpp's quantizer takes
SHORT_ROWS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
SHORT_ROWS |= {"NF4": "IQ4_NL", "TQ2_0": "Q4_0", "Q2_0": "Q4_0", "Q1_0": "Q4_0"}
# In .eqf, whose super-blocks can be short: what loses no more there than llama.cpp's larger types of SHORT_ROWS
NARROW = {"Q2_K": "Q3_K", "Q3_K": "Q4_K"}
FOR_EXPERTS = (
    "Q8_0"  # of a mixture, whose kernels read no activations with one scale, instead of a type that needs such
)


@dataclass(frozen=True)
class Rule:
    """Matrices `blk.N.<part>.weight`, and experts' `<part>_exps` and `<part>_shexp`, of the layers where
    `layers(N, number of layers)` get `type`."""

    part: str
    layers: Callable[[int, int], bool]
    type: str


@dataclass(frozen=True)
class Choice:
    """A tensor's type, and why it is not the recipe's, if it is not."""

    type: str
    fallback: str | None = None


@dataclass(frozen=True)
class Recipe:
    """base: type of matrices; head: of `output.weight`, or of `token_embd.weight` where it is the head too; embedding:
    of `token_embd.weight` where it is not, if that is another than base; narrow: rules that come first for rows whose
    last super-block is short; gguf: whether GGUF must hold what is chosen.
    """

    name: str
    base: str
    head: str
    rules: tuple[Rule, ...] = ()
    embedding: str = ""
    narrow: tuple[Rule, ...] = ()
    gguf: bool = False

    def type_for(self, name: str, shape: Sequence[int], n_layers: int, tied: bool) -> Choice:
        """The type of tensor `name` (as in the file) of a model with `n_layers`; `tied`: it has no `output.weight`.

        Vectors are F32, and so are the small matrices in KEPT; those in OF_HEADS are FOR_HEADS where others are
        quantized, and those that a model sees with FOR_IMAGES. A matrix whose rows the chosen type cannot hold becomes
        F16.
        """
        kept = name.removesuffix(".weight").rsplit(".", 1)[-1] in KEPT or name.startswith(AFTER_POOLING)
        if len(shape) == 1 or kept:
            return Choice("F32")
        wanted = self._wanted(name, n_layers, tied, self.rules)
        if block_type(wanted).accepts(shape[-1]):
            if block_type(wanted).per_row and len(shape) > 2:
                return Choice(FOR_EXPERTS, f"experts' rows have a scale for each group: {FOR_EXPERTS}, not {wanted}")
            if self.gguf:
                return _in_gguf(wanted, shape[-1])
            if shape[-1] % SUPER_BLOCK == 0:
                return Choice(wanted)
            return _in_narrow(wanted, self._wanted(name, n_layers, tied, self.narrow + self.rules), shape[-1])
        return Choice("F16", f"{wanted} {block_type(wanted).refusal(shape[-1])}: F16")

    def _wanted(self, name: str, n_layers: int, tied: bool, rules: tuple[Rule, ...]) -> str:
        if is_of_images(name):
            return FOR_IMAGES if block_type(self.base).quantized else self.base
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            return self.head
        if name == "token_embd.weight" and self.embedding:
            return self.embedding
        parts = name.split(".")
        if parts[0] == "blk" and parts[-1] == "weight":
            part = ".".join(parts[2:-1]).removesuffix("_exps").removesuffix("_shexp")
            if part in OF_HEADS and block_type(self.base).quantized:
                return FOR_HEADS
            for rule in rules:
                if rule.part == part and rule.layers(int(parts[1]), n_layers):
                    return rule.type
        return self.base


def _in_narrow(wanted: str, kind: str, columns: int) -> Choice:
    """`kind`, or a larger type: on narrow rows llama.cpp's files of a name are larger, and lose less for it."""
    kind = NARROW.get(kind, kind)
    if kind == wanted:
        return Choice(wanted)
    return Choice(kind, f"rows of {columns} weights are no multiple of {SUPER_BLOCK}: {kind}, as {wanted} loses much")


def _in_gguf(wanted: str, columns: int) -> Choice:
    """The type wanted, or one that GGUF has for rows of any multiple of 32: its super-blocks cannot be short."""
    try:
        block_type(wanted).gguf_bytes(1, columns)
    except UnsupportedError:
        kind = SHORT_ROWS.get(wanted, "Q8_0")
        return Choice(kind, f"GGUF cannot hold rows of {columns} in {wanted}: {kind}")
    return Choice(wanted)


def more_bits(layer: int, n_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between: about half of them."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def first_eighth(layer: int, n_layers: int) -> bool:
    return layer < n_layers // 8


def first_sixteenth(layer: int, n_layers: int) -> bool:
    return layer < max(n_layers // 16, 1)


def first_two(layer: int, n_layers: int) -> bool:
    return layer < 2


def every(layer: int, n_layers: int) -> bool:
    return True


def first_four(layer: int, n_layers: int) -> bool:
    return layer < 4


# By these alone a calibrated file of four bits loses less than llama.cpp's; of other matrices it would take more bytes
ATTENTION = tuple(Rule(part, every, "Q5_K") for part in ("attn_q", "attn_k", "attn_output"))

RECIPES = {
    r.name: r
    for r in (
        Recipe("F32", "F32", "F32"),
        Recipe("F16", "F16", "F16"),
        Recipe("BF16", "BF16", "BF16"),
        Recipe("Q8_0", "Q8_0", "Q8_0"),
        # What these two read has channels that no norm before them can make smaller
        Recipe(
            "I8_R",
            "I8_R",
            "Q8_0",
            (Rule("ffn_down", every, "Q8_0"), Rule("attn_output", every, "Q8_0")),
            embedding="Q8_0",
        ),
        Recipe("Q6_K", "Q6_K", "Q6_K"),
        Recipe("Q5_K_M", "Q5_K", "Q6_K", (Rule("attn_v", more_bits, "Q6_K"), Rule("ffn_down", more_bits, "Q6_K"))),
        Recipe("Q5_K_S", "Q5_K", "Q6_K"),
        Recipe(
            "Q4_K_M",
            "Q4_K",
            "Q6_K",
            (Rule("attn_v", more_bits, "Q6_K"), Rule("ffn_down", more_bits, "Q6_K")),
            narrow=ATTENTION,
        ),
        Recipe(
            "Q4_K_S",
            "Q4_K",
            "Q6_K",
            (Rule("attn_v", first_four, "Q5_K"), Rule("ffn_down", first_eighth, "Q5_K")),
            narrow=ATTENTION,
        ),
        Recipe(
            "Q3_K_M",
            "Q3_K",
            "Q6_K",
            (
                Rule("attn_v", first_two, "Q5_K"),
                Rule("attn_v", every, "Q4_K"),
                Rule("ffn_down", first_sixteenth, "Q5_K"),
                Rule("ffn_down", every, "Q4_K"),
                Rule("attn_output", every, "Q4_K"),
            ),
        ),
        Recipe("Q3_K_S", "Q3_K", "Q6_K"),
        Recipe(
            "Q2_K",
            "Q2_K",
            "Q6_K",
            (Rule("attn_v", every, "Q4_K"), Rule("ffn_down", every, "Q3_K"), Rule("attn_output", every, "Q3_K")),
        ),
        Recipe("IQ4_NL", "IQ4_NL", "Q6_K", (Rule("ffn_down", first_eighth, "Q5_K"),)),
        Recipe("IQ4_XS", "IQ4_XS", "Q6_K", (Rule("ffn_down", first_eighth, "Q5_K"),)),
        Recipe("MXFP4", "MXFP4", "Q8_0"),
        Recipe("NF4", "NF4", "Q6_K"),
        Recipe("TQ2_0", "TQ2_0", "Q6_K", embedding="Q4_K"),
        Recipe("Q2_0", "Q2_0", "Q6_K", embedding="Q4_K"),
        Recipe("Q1_0", "Q1_0", "Q6_K", embedding="Q4_K"),
        Recipe("Q4_0", "Q4_0", "Q6_K"),
        Recipe("Q4_1", "Q4_1", "Q6_K"),
        Recipe("Q5_0", "Q5_0", "Q6_K"),
        Recipe("Q5_1", "Q5_1", "Q6_K"),
    )
}
LEAST_ALIKE = 0.6  # of SequenceMatcher's ratio, for a name to be taken as a slip
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def recipe(name: str) -> Recipe:
    """The recipe called `name`, in any case; UsageError that lists the known ones."""
    key = name.upper()
    found = RECIPES.get(ALIASES.get(key, key))
    if found is None:
        known = [*RECIPES, *ALIASES]
        alike = {other: SequenceMatcher(None, key, other).ratio() for other in known}
        near = max(alike, key=lambda other: alike[other])  # the first one at a tie, so `_M` rather than `_S`
        hint = f"did you mean {near}? " if alike[near] >= LEAST_ALIKE else ""
        raise UsageError(f"unknown type {name!r}: {hint}Known are {', '.join(known)}")
    return found
