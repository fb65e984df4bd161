"""Write tests/golden/: what transformers computes in float32, for the tests to compare with.

    python tools/make_golden.py [--models FOLDER] [--llama-cpp SOURCES --peer-python PYTHON]

Needs torch and transformers, and tokenizers and sentencepiece for the prompts; edgeq needs none of the first two. Run
it again after the bundled model has changed. FOLDER holds the checkpoints stories260K, babyllama105 and bitllama-3M;
without it their files stay as they are. Of the cases in tests/models/peer_cases.py, which transformers has no class of,
llama.cpp computes the logits: SOURCES is its folder, PYTHON one that has its package.

Of a model: a prompt, the tokens that follow it greedily, and logits at every position: of the likeliest tokens, of
others that differ from position to position until every token had its turn, and log(sum(exp(logits))) of all.
"""

import argparse
import hashlib
import inspect
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import sentencepiece
import tokenizers
import torch
import transformers

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "models")]

import random_checkpoints  # noqa: E402
from architecture_cases import FILES  # noqa: E402
from encoder_cases import DECODERS, FIRST  # noqa: E402
from llama_models import Llama  # noqa: E402

PROMPT_TOKENS, GENERATED = 56, 200
LIKELIEST, OTHERS = 4, 24  # logits kept per position
MARGIN = 0.002  # of the likeliest token over the next one: below, rounding could change the text
SMALL_MARGIN = 0.0005  # of the random checkpoints, which have two or three layers
PROMPTS = (
    "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her friends. One "
    "sunny day she found a big red ball under a tree. She wanted to take it home, but then a small dog came and looked "
    "at her with sad eyes.",
    "Tom and Ben were best friends. They liked to go to the lake and look for frogs. One day they saw a boat that had "
    "no owner. Ben said they should ask his mom before they go in. Tom did not want to wait, so he jumped in alone.",
    "The old bear lived in a cave near the river. Every morning he went to catch fish for his breakfast. But one day "
    "the river was dry, and there were no fish at all. The bear was very hungry and did not know what to do next.",
    "One day, a boy named Tim got a new kite for his birthday. It was blue and had a long tail. He ran to the hill to "
    "fly it high in the sky, and his sister came with him. The wind was strong that day and the kite went up and up.",
)


def stand_in(folder: Path) -> None:
    """Rewrite a checkpoint which transformers leaves to code of its repository as one that it knows and that computes
    the same."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if config["model_type"] == "minicpm":  # Granite with factors under other names
        config |= {
            "model_type": "granite",
            "architectures": ["GraniteForCausalLM"],
            "embedding_multiplier": config["scale_emb"],
            "residual_multiplier": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
            "logits_scaling": config["hidden_size"] / config["dim_model_base"],
            "attention_multiplier": (config["hidden_size"] / config["num_attention_heads"]) ** -0.5,
        }
    elif config["model_type"].startswith("bailing_moe"):  # GLM 4.5 with queries, keys and values in one
        config |= {
            "model_type": "glm4_moe",
            "architectures": ["Glm4MoeForCausalLM"],
            "n_routed_experts": config["num_experts"],
            "n_shared_experts": config["num_shared_experts"],
            "attention_bias": config["use_qkv_bias"],
        }
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        safetensors.numpy.save_file(as_glm(weights, config), folder / "model.safetensors", {"format": "pt"})
    path.write_text(json.dumps(config))


LING_NAMES = (
    ("word_embeddings", "embed_tokens"),
    ("attention.dense", "self_attn.o_proj"),
    ("attention.query_layernorm", "self_attn.q_norm"),
    ("attention.key_layernorm", "self_attn.k_norm"),
    ("gate.expert_bias", "gate.e_score_correction_bias"),
)


def as_glm(weights: dict[str, np.ndarray], config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Ling's tensors as those of GLM 4.5."""
    found, heads, shared = {}, config["num_attention_heads"], config["num_key_value_heads"]
    for name, values in weights.items():
        for here, there in LING_NAMES:
            name = name.replace(here, there)
        if "query_key_value" not in name:
            found[name] = values
            continue
        parts = np.split(values, [heads * config["head_dim"], (heads + shared) * config["head_dim"]])
        for kind, part in zip("qkv", parts, strict=True):
            found[name.replace("attention.query_key_value", f"self_attn.{kind}_proj")] = np.ascontiguousarray(part)
    return found


def load(folder: Path) -> Any:
    """The model; SystemExit if its checkpoint lacks a tensor, or has one that transformers does not know."""
    stand_in(folder)
    # Falcon's eager attention counts ALiBi twice, in the mask too
    alibi = json.loads((folder / "config.json").read_text()).get("alibi")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa" if alibi else "eager", output_loading_info=True
    )
    if any(info.values()):
        raise SystemExit(f"{folder}: not as transformers wants it: {info}")
    return model.eval()


def logits_of(model: Any, tokens: list[int]) -> np.ndarray:
    """f32 [tokens, vocabulary]."""
    with torch.no_grad():
        result: np.ndarray = model(torch.tensor([tokens])).logits[0].float().numpy()
    return result


def encode(folder: Path, text: str) -> list[int]:
    """The first tokens of a prompt, with the beginning-of-text token before them."""
    bos = json.loads((folder / "config.json").read_text())["bos_token_id"]
    if (folder / "tokenizer.json").exists():
        ids = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    else:
        ids = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(text)
    if len(ids) < PROMPT_TOKENS - 1:
        raise SystemExit(f"{folder}: the prompt is too short: {len(ids)} tokens")
    return [bos, *ids[: PROMPT_TOKENS - 1]]


def greedy(model: Any, prompt: list[int], count: int = GENERATED, least: float = 0.0) -> tuple[list[int], float]:
    """The prompt and its continuation, end-of-text tokens included, and the smallest margin of a choice. The
    continuation ends before a choice whose margin is below `least`."""
    tokens, smallest = list(prompt), np.inf
    with torch.no_grad():
        output = model(torch.tensor([tokens]), use_cache=True)
        for step in range(count):
            row = output.logits[0, -1].float()
            best = row.topk(2)
            margin = float(best.values[0] - best.values[1])
            if margin < least:
                break
            smallest = min(smallest, margin)
            tokens.append(int(best.indices[0]))
            kept = next((name for name in ("cache", "past_key_values") if name in output), "")  # newer, older
            if not kept or model.config.model_type == "zamba2":  # with its cache steps have no least length
                output = model(torch.tensor([tokens]))
            elif step < count - 1:
                given = {kept: output[kept]}
                if "position_ids" in inspect.signature(model.forward).parameters:  # Bamba would begin anew
                    given["position_ids"] = torch.tensor([[len(tokens) - 1]])
                output = model(torch.tensor([tokens[-1:]]), use_cache=True, **given)
    return tokens, smallest


def sample(logits: np.ndarray) -> dict[str, Any]:
    """The logits to keep: ids [positions, kept], their logits, and the sum over all."""
    positions, vocabulary = logits.shape
    likeliest = np.argsort(-logits, axis=1, kind="stable")[:, :LIKELIEST]
    spread = (np.arange(OTHERS) * vocabulary // OTHERS)[None, :] + np.arange(positions)[:, None]
    ids = np.concatenate([likeliest, spread % vocabulary], axis=1).astype(np.uint16)
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    total = (top + np.log(np.exp(wide - top).sum(axis=1, keepdims=True)))[:, 0]
    return {"ids": ids, "logits": np.take_along_axis(logits, ids.astype(np.int64), axis=1), "logsumexp": total}


def write_model(name: str, folder: Path) -> dict[str, Any]:
    """tests/golden/<name>.npz; returns what the manifest says of it."""
    weights = folder / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    model = load(folder)
    if hashlib.sha256(weights.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"{weights}: was replaced while it was read: run again")
    tokens, margin = max((greedy(model, encode(folder, text)) for text in PROMPTS), key=lambda result: result[1])
    print(f"{name}: smallest margin {margin:.4f}")
    if margin < MARGIN:
        raise SystemExit(f"{name}: every prompt meets a choice that rounding could change: add prompts")
    kept = sample(logits_of(model, tokens))
    np.savez_compressed(GOLDEN / f"{name}.npz", tokens=np.array(tokens, np.uint16), prompt=PROMPT_TOKENS, **kept)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return {"model_type": kind, "sha256": digest, "margin": round(margin, 4)}


def write_architectures(known: dict[str, str], peer: Llama | None) -> dict[str, str]:
    """tests/golden/architectures.npz and those beside it: logits of every random checkpoint, and the tokens that follow
    its prompt greedily (`CASE greedy`); returns their fingerprints.

    Those of a checkpoint whose fingerprint is `known` are kept.
    """
    kept: dict[str, Any] = {}
    for name in FILES:
        if known and (path := GOLDEN / f"{name}.npz").exists():
            kept |= np.load(path)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in random_checkpoints.CASES:
            names = (case, f"{case} greedy")
            if set(names) <= kept.keys() and known.get(case) == random_checkpoints.digest(case):
                found |= {name: kept[name] for name in names}
                continue
            checkpoint, prompt = random_checkpoints.write(case, Path(folder) / case), random_checkpoints.make(case)[2]
            count = random_checkpoints.continued(case)
            if case in FILES["peers"]:
                if peer is None:
                    raise SystemExit(f"{case}: transformers has no class of it: say --llama-cpp and --peer-python")
                found[case], follows = peer.greedy(peer.convert(checkpoint), prompt, count, SMALL_MARGIN)
            else:
                model = load(checkpoint)
                found[case] = logits_of(model, prompt)
                follows = greedy(model, prompt, count, SMALL_MARGIN)[0][len(prompt) :]
            found[f"{case} greedy"] = np.array(follows, np.uint16)
            print(f"{case}: logits within {np.abs(found[case]).max():.2f}, {len(follows)} tokens")
    for name, cases in FILES.items():
        of_file = {key: found[key] for case in cases for key in (case, f"{case} greedy")}
        if known and (path := GOLDEN / f"{name}.npz").exists() and same(dict(np.load(path)), of_file):
            continue
        np.savez_compressed(GOLDEN / f"{name}.npz", **of_file)
    return {case: random_checkpoints.digest(case) for case in random_checkpoints.CASES}


def same(some: dict[str, Any], others: dict[str, Any]) -> bool:
    """Whether both have the same arrays."""
    return some.keys() == others.keys() and all(np.array_equal(some[key], others[key]) for key in some)


def write_states() -> dict[str, str]:
    """tests/golden/states.npz: the last states of random encoders, and of some decoders; returns their fingerprints."""
    states: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in (*FIRST, *DECODERS):
            folder = random_checkpoints.write(case, Path(scratch) / case)
            prompt = random_checkpoints.make(case)[2]
            more = {}
            if case in DECODERS:
                model = load(folder).base_model
            else:
                without = {} if case == "distilbert" else {"add_pooling_layer": False}
                model, info = transformers.AutoModel.from_pretrained(
                    folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, **without
                )
                if any(info.values()):
                    raise SystemExit(f"{folder}: not as transformers wants it: {info}")
                model.eval()
            if "roberta" in case:  # which would not count tokens that are the padding's
                more["position_ids"] = torch.arange(len(prompt))[None] + model.config.pad_token_id + 1
            with torch.no_grad():
                states[case] = model(torch.tensor([prompt]), **more).last_hidden_state[0].float().numpy()
            print(f"{case}: states within {np.abs(states[case]).max():.2f}")
    np.savez_compressed(GOLDEN / "states.npz", **states)
    return {case: random_checkpoints.digest(case) for case in states}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder of checkpoints, as above")
    parser.add_argument("--all", action="store_true", help="also compute anew what has not changed")
    parser.add_argument("--architectures", action="store_true", help="only the random checkpoints of architectures")
    parser.add_argument("--llama-cpp", type=Path, metavar="SOURCES", help="llama.cpp's folder")
    parser.add_argument("--peer-python", metavar="PYTHON", help="a Python that has llama_cpp")
    options = parser.parse_args()
    peer = Llama(options.llama_cpp, options.peer_python) if options.llama_cpp and options.peer_python else None
    torch.manual_seed(0)
    manifest_path = GOLDEN / "manifest.json"
    GOLDEN.mkdir(parents=True, exist_ok=True)
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {"models": {}}
    folders = {} if options.architectures else {"tiny_model": REPOSITORY / "tools" / "tiny_model"}
    if options.models:
        folders |= {name: options.models / name for name in ("stories260K", "babyllama105", "bitllama-3M")}
    for name, folder in folders.items():
        manifest["models"][name] = write_model(name, folder)
    manifest["architectures"] = write_architectures({} if options.all else manifest.get("architectures", {}), peer)
    if not options.architectures:
        manifest["states"] = write_states()
    manifest["made_with"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
