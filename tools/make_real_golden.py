"""Write tests/real/golden/: what transformers computes in float32 from the weights of real GGUF files.

    python tools/make_real_golden.py [smollm2] [gemma3]

Needs torch, transformers and gguf, and the files (`python tools/real_model.py`). The blocks are turned into float32 by
the gguf package and given to the model by name; the configuration is spelled out here; tokenizers are those that
transformers makes of the files. So nothing of edgeq takes part.

Of SmolLM2 a chat of several turns, each answered greedily; of both models logits of a long text at some positions: of
the likeliest tokens, of others spread over the vocabulary, and log(sum(exp(logits))) of all; and of Gemma 3 the tokens
that follow the text greedily. `margin` is the smallest one of the likeliest token over the next at any choice.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from gguf.quants import dequantize

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / "real"), str(REPOSITORY / "tools")]

from conversation import CONTINUED, MAX_TOKENS, TEXT, TURNS  # noqa: E402
from real_model import MODELS, find  # noqa: E402

GOLDEN = REPOSITORY / "tests" / "real" / "golden"
MARGIN = 0.003  # below, rounding could change the text
LIKELIEST, OTHERS = 6, 12  # logits kept of a position
CHAT_POSITIONS = 24
TEXT_POSITIONS = (0, 1, 30, 127, 255, 256, 383, 509, 510, 511, 512, 513, 514, 575, 600, 639, -2, -1)

CONFIGS = {
    "smollm2": transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    ),
    "gemma3": transformers.Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        sliding_window=512,
        layer_types=["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(18)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        tie_word_embeddings=True,
    ),
}
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FFN_NORM = {"smollm2": "post_attention_layernorm", "gemma3": "pre_feedforward_layernorm"}


def weights(name: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by transformers' names."""
    config, found = CONFIGS[name], {}
    for tensor in GGUFReader(path).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        place, part = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name).groups()
        if name == "smollm2" and part in ("attn_q", "attn_k"):  # GGUF has the two halves of a head interleaved
            heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
            values = values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if name == "gemma3" and part.endswith("norm"):  # GGUF has 1 added
            values = values - np.float32(1)
        target = (NAMES | {"ffn_norm": FFN_NORM[name]})[part]
        found[f"model.layers.{place}.{target}.weight" if place else f"model.{target}.weight"] = torch.tensor(values)
    return found


def load(name: str, path: Path) -> Any:
    """The model. SystemExit if a tensor is missing or unknown."""
    config = CONFIGS[name]
    config._attn_implementation = "eager"
    kind = transformers.LlamaForCausalLM if name == "smollm2" else transformers.Gemma3ForCausalLM
    model = kind(config).float().eval()
    missing, unexpected = model.load_state_dict(weights(name, path), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def greedy(model: Any, tokens: list[int], count: int, ends: set[int]) -> tuple[list[int], float]:
    """Up to `count` tokens that follow, an end included, and the smallest margin of a choice."""
    found: list[int] = []
    smallest, cache, given = np.inf, None, tokens
    with torch.no_grad():
        for _ in range(count):
            output = model(torch.tensor([given]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            best = output.logits[0, -1].topk(2)
            smallest = min(smallest, float(best.values[0] - best.values[1]))
            found.append(int(best.indices[0]))
            cache, given = output.past_key_values, found[-1:]
            if found[-1] in ends:
                break
    return found, smallest


def sample(model: Any, tokens: list[int], positions: list[int]) -> dict[str, Any]:
    """The logits that are kept, of some positions."""
    with torch.no_grad():
        rows = model(torch.tensor([tokens]), logits_to_keep=torch.tensor(positions)).logits[0].double()
    size = rows.shape[1]
    ids = [
        [*row.topk(LIKELIEST).indices.tolist(), *((j * size // OTHERS + 31 * i) % size for j in range(OTHERS))]
        for i, row in enumerate(rows)
    ]
    return {
        "positions": positions,
        "ids": ids,
        "logits": [[round(float(row[j]), 5) for j in kept] for row, kept in zip(rows, ids, strict=True)],
        "logsumexp": [round(float(total), 5) for total in torch.logsumexp(rows, dim=1)],
    }


def chat(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The turns; the whole conversation's tokens, with logits of some positions."""
    messages: list[dict[str, str]] = []
    turns, least = [], np.inf
    for question in TURNS:
        messages.append({"role": "user", "content": question})
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        answer, margin = greedy(model, prompt, MAX_TOKENS, {tokenizer.eos_token_id})
        text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        print(f"{margin:.4f} {text!r}")
        kept = {"prompt": prompt[-16:], "prompt_tokens": len(prompt), "answer": text, "margin": round(margin, 4)}
        turns.append({"question": question, **kept})
        messages.append({"role": "assistant", "content": text})
        least = min(least, margin)
    tokens = prompt + answer
    positions = [i * (len(tokens) - 1) // (CHAT_POSITIONS - 1) for i in range(CHAT_POSITIONS)]
    return {"turns": turns, "tokens": tokens, "margin": round(least, 4), **sample(model, tokens, positions)}


def continued(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The long text's tokens with logits of some positions, and what follows it."""
    tokens = tokenizer(TEXT).input_ids
    answer, margin = greedy(model, tokens, CONTINUED, set())
    text = tokenizer.decode(answer, clean_up_tokenization_spaces=False)
    print(f"{len(tokens)} tokens; {margin:.4f} {text!r}")
    positions = sorted(i % len(tokens) for i in TEXT_POSITIONS)
    found = {"tokens": tokens, "following": answer, "text": text, "margin": round(margin, 4)}
    return {**found, **sample(model, tokens, positions)}


def main() -> None:
    for name in sys.argv[1:] or MODELS:
        path = find(name) or sys.exit(f"{name} is not in the cache: run tools/real_model.py {name}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        golden = (chat if name == "smollm2" else continued)(load(name, path), tokenizer)
        if golden["margin"] < MARGIN:
            raise SystemExit(f"{name}: a choice is so near that rounding could change the text: say something else")
        golden |= {"sha256": MODELS[name].sha256, "made_with": f"transformers {transformers.__version__}"}
        (GOLDEN / f"{name}.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
