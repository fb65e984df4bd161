"""The page of all model types of transformers that write text: which of them edgeq runs, and what the others need.

    python tools/text_models.py [--write] [--scan]

Prints edgeq/docs/text_models.md, or writes it: what runs is taken from edgeq's tables, what others need from the page
as it is. `--scan`, which needs transformers, makes that anew: of each model type what its code there has that edgeq has
not.
"""

import argparse
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "edgeq" / "docs" / "text_models.md"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "models")]

from encoder_cases import ENCODERS  # noqa: E402

from edgeq.models import SUPPORTED  # noqa: E402
from edgeq.models.wrapped import TEXT  # noqa: E402
from edgeq.system.output import write_file  # noqa: E402

EMBEDS = {config["model_type"] for config in ENCODERS.values()}
RUNS, AS_ENCODER, INSIDE = "runs", "runs as an encoder: embeds texts", "runs inside the larger model"
# What code of transformers may have -> what it means; the first that is found counts
SIGNS = {
    r"kv_lora_rank": "latent attention (MLA)",
    r"[Mm]amba|ssm_state|recurrent_state|class \w*(Rwkv|RWKV|xLSTM|GatedDelta|DeltaNet|LightningAttention)": (
        "recurrent layers"
    ),
    r"alibi": "attention with a bias by distance (ALiBi)",
    r"class \w*CrossAttention|encoder_hidden_states|encoder_attn": "attention to an encoder's states",
    r"relative_position_bucket|rel_pos|relative_attention": "attention with relative positions of its own",
    r"class \w*(Experts|MoE|Moe|SparseMoe)\w*\(": "a mixture of experts of its own",
}
KNOWN, UNKNOWN = (
    "a larger model around one that runs, or that its text_config names",
    "a larger model around one that does not run",
)
OTHERWISE = "layers that nobody has described yet"
HEAD = """# Which of transformers' models run

All model types of transformers {version} that write text, by themselves or of pictures or sound; made by
tools/text_models.py. Where edgeq does not run one, the left column says what the first thing is that its code there has
and edgeq has not. Of models with eyes or ears the language model runs; support.md says which of them see images.

| edgeq | model types |
| --- | --- |
"""


def runs(model_type: str) -> str:
    """How edgeq runs a model type, "" if it does not."""
    if model_type in EMBEDS:
        return AS_ENCODER
    if model_type in SUPPORTED:
        return RUNS
    return INSIDE if model_type in TEXT else ""


def read(page: str) -> tuple[str, dict[str, str]]:
    """The version that a page is of, and what it says of every model type."""
    version = re.search(r"transformers (\S+)", page)
    rows = [line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    return version[1] if version else "", {name: said for said, names in rows for name in names.split(", ")}


def render(version: str, needs: Mapping[str, str]) -> str:
    """The page. SystemExit for a model type of which nothing is known."""
    groups: dict[str, list[str]] = {RUNS: [], AS_ENCODER: [], INSIDE: []}
    for name in sorted(needs):
        said = runs(name) or needs[name]
        if not runs(name) and said in (RUNS, AS_ENCODER, INSIDE):
            raise SystemExit(f"{name} does not run any more: tools/text_models.py --scan says why")
        groups.setdefault(said, []).append(name)
    order = [RUNS, AS_ENCODER, INSIDE, *sorted(groups.keys() - {RUNS, AS_ENCODER, INSIDE})]
    rows = [f"| {said} | {', '.join(groups[said])} |" for said in order if groups[said]]
    return HEAD.format(version=version) + "\n".join(rows) + "\n"


def scan() -> tuple[str, dict[str, str]]:
    """As `read`, of the transformers that is installed."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    alone = {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    seeing = {*auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    both = {*auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
    return transformers.__version__, {name: need(name, name in alone) for name in alone | seeing | both}


def need(model_type: str, alone: bool) -> str:
    """What the code of a model type has that edgeq has not."""
    if runs(model_type):
        return runs(model_type)
    inner = text_type(model_type)
    if inner and inner != model_type:
        return KNOWN if runs(inner) else UNKNOWN
    source = code(model_type)
    found = next((said for sign, said in SIGNS.items() if re.search(sign, source)), OTHERWISE)
    return found if alone or found != OTHERWISE else "attention to an encoder's states"


def text_type(model_type: str) -> str:
    """The model type of the language model inside a larger one, "" if there is none; where that may be any, Llama's
    stands for it."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return ""
    parts: Mapping[str, Any] = getattr(CONFIG_MAPPING[model_type], "sub_configs_defaults", None) or {}
    part = parts.get("text_config") or parts.get("llm_config")
    inner = getattr(part, "config_class", part)
    return "llama" if getattr(inner, "__name__", "") == "AutoConfig" else str(getattr(inner, "model_type", "") or "")


def code(model_type: str) -> str:
    """What transformers computes it with."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    module = model_type_to_module_name(model_type)
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin is not None
    files = (Path(package.origin).parent / "models" / module).glob("modeling_*.py")
    return "\n".join(path.read_text() for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the page")
    parser.add_argument("--scan", action="store_true", help="look at transformers again, which must be installed")
    options = parser.parse_args()
    page = render(*(scan() if options.scan else read(PAGE.read_text())))
    if options.write:
        write_file(PAGE, page.encode())
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
