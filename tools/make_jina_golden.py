"""Write tests/golden/jina.npz: last states of small random Jina BERTs that llama.cpp computes in float32.

    python tools/make_jina_golden.py --llama-server PATH

Needs the gguf package, which writes the files that llama.cpp reads. The checkpoints are tests/models' CASES; of each
there are its states, and `CASE digest`, its fingerprint.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import gguf
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden" / "jina.npz"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "models")]

import random_checkpoints  # noqa: E402
from sentence_encoder import VOCABULARY  # noqa: E402

CASES, PORT = ("jina-bert-v2", "jina-bert-v2-code"), 18765
# The names of a checkpoint's tensors, without their layer, and of GGUF's
NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.layer_norm_q": "attn_q_norm",
    "attention.self.layer_norm_k": "attn_k_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "mlp.gated_layers": "ffn_up",
    "mlp.wo": "ffn_down",
    "mlp.layernorm": "layer_output_norm",
    "mlp.down_layer": "ffn_down",
    "layer_norm_1": "attn_norm_2",
    "layer_norm_2": "layer_output_norm",
}
HALVES = "mlp.up_gated_layer.weight"  # which come apart: joined ones are read the other way around


def write(path: Path, case: str = CASES[0]) -> Path:
    """The case as a GGUF file."""
    config, weights, _ = random_checkpoints.make(case)
    writer = gguf.GGUFWriter(path, "jina-bert-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    special, words = VOCABULARY[:5], VOCABULARY[5:]
    spaced = [word.removeprefix("##") if word.startswith("##") else f"▁{word}" for word in words]
    writer.add_token_list([*special, *spaced])
    writer.add_token_type_count(config["type_vocab_size"])
    for role, number in (("unk", 1), ("sep", 3), ("pad", 0), ("bos", 2), ("mask", 4)):
        getattr(writer, f"add_{role}_token_id")(number)
    for name, values in weights.items():
        layer, own = "", name
        if name.startswith("encoder.layer."):
            number, own = name.removeprefix("encoder.layer.").split(".", 1)
            layer = f"blk.{number}."
        if own == HALVES:
            for half, one in zip(("ffn_up", "ffn_gate"), np.split(values, 2), strict=True):
                writer.add_tensor(f"{layer}{half}.weight", np.ascontiguousarray(one))
            continue
        stem = next(theirs for theirs in NAMES if own.startswith(theirs))
        writer.add_tensor(layer + NAMES[stem] + own.removeprefix(stem), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def states(server: str, path: Path, prompt: list[int]) -> np.ndarray:
    """What llama.cpp's server gives of every token, f32 [tokens, width]."""
    options = ["--embedding", "--pooling", "none", "--port", str(PORT), "-c", "128", "-t", "1", "-fa", "off"]
    process = subprocess.Popen([server, "-m", str(path), *options], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    body = json.dumps({"content": prompt}).encode()
    try:
        for _ in range(120):
            request = urllib.request.Request(f"http://127.0.0.1:{PORT}/embedding", body)
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return np.array(json.load(response)[0]["embedding"], np.float32)
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    break
                time.sleep(0.5)
    finally:
        process.terminate()
        process.wait()
    raise SystemExit(f"{server} gives no embeddings of {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llama-server", required=True, metavar="PATH", help="llama.cpp's program")
    options = parser.parse_args()
    found = {}
    for case in CASES:
        prompt = random_checkpoints.make(case)[2]
        with tempfile.TemporaryDirectory() as scratch:
            found[case] = states(options.llama_server, write(Path(scratch) / "m.gguf", case), prompt)
        assert found[case].shape[0] == len(prompt), "as many states as tokens"
        found[f"{case} digest"] = np.array(random_checkpoints.digest(case))
        print(f"{case}: within {np.abs(found[case]).max():.2f}")
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main()
