"""Check GGUF files against llama.cpp: what it quantizes comes back byte for byte, and what edgeq exports it runs alike.

    python tools/check_gguf.py --peer-python PYTHON [CASE or TYPE ...]

Of every architecture of tests/models, the random checkpoint in F32 is exported; llama.cpp's logits are compared with
edgeq's, and the tokens that follow. Of every type that llama.cpp's quantizer makes, a small Llama is quantized by it,
imported and exported: every tensor's bytes and all metadata must be the same, and llama.cpp must run it. How far apart
logits are is only told there: both quantize activations, each in its way, and random weights make much of that.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), *(str(REPOSITORY / "tests" / part) for part in ("models", "gguf"))]

import random_checkpoints  # noqa: E402
from architecture_cases import CASES  # noqa: E402
from gguf_cases import REFUSED, changed  # noqa: E402

import edgeq  # noqa: E402
from edgeq.container.gguf_reader import open_gguf  # noqa: E402
from edgeq.conversion.conversion import convert  # noqa: E402
from edgeq.gguf.exporter import export_gguf  # noqa: E402
from edgeq.gguf.importer import import_gguf  # noqa: E402

FOLLOWING = 6  # tokens after the prompt
PEER = Path(__file__).with_name("llama_peer.py")
# What llama.cpp's quantizer calls the recipe that makes each type of all matrices
FTYPES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "IQ2_S": "IQ2_M", "MXFP4": "MXFP4_MOE"}
TYPES = (
    *("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"),
    *("IQ4_XS", "MXFP4", "TQ1_0", "TQ2_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
)
WIDE = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 96}
# Cases that llama.cpp computes otherwise than transformers does: it rounds the ends of gpt-oss' ramp, which a small
# head shows, 0.3.36 gates BitNet with SiLU whatever the file says, and divides Gemma 3n's variance by one less, which
# wide rows hide; so many layers of random weights make much of anything, unless norms give little
OTHERWISE = {
    "gpt-oss": {"rope_scaling": None},
    "bitnet": {"hidden_act": "silu"},
    "gemma3n": {"intermediate_size": 2048, "rms_norm_eps": 30.0},
    "gemma3n-older": {"intermediate_size": 8192},
}


def peer(python: str, *arguments: str) -> str:
    """Run it; what went wrong, "" for nothing."""
    done = subprocess.run([python, str(PEER), *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def compared(python: str, model: Path, gguf: Path, prompt: Sequence[int]) -> tuple[float, int, bool]:
    """(largest difference of logits over their spread, same tokens that follow, whether llama.cpp ran it)."""
    Path(f"{gguf}.ids").write_text(" ".join(map(str, prompt)))
    if peer(python, "run", str(gguf), str(FOLLOWING)):
        return float("nan"), 0, False
    with edgeq.load(model) as loaded:  # its whole context: llama.cpp makes a short one longer
        found = loaded.logits(list(prompt))
        text: list[int] = []
        while len(text) < FOLLOWING:
            text.append(int(loaded.logits([*prompt, *text])[-1].argmax()))
    theirs = np.fromfile(f"{gguf}.logits", np.float32).reshape(len(prompt), -1)
    words = [int(word) for word in Path(f"{gguf}.text").read_text().split()]
    same = next((i for i, (a, b) in enumerate(zip(text, words, strict=True)) if a != b), FOLLOWING)
    return float(np.abs(found - theirs).max() / theirs.std()), same, True


def check_architecture(case: str, folder: Path, python: str) -> bool:
    CASES[case] = changed(case) | OTHERWISE.get(case, {})
    prompt = random_checkpoints.make(case)[2]
    model, gguf = folder / "m.eqf", folder / "m.gguf"
    convert(random_checkpoints.write(case, folder / case), model, "F32", allow_no_tokenizer=True)
    export_gguf(model, gguf)
    difference, same, ran = compared(python, model, gguf, prompt)
    print(f"{case:28} logits within {difference:.1e} of their spread, {same} of {FOLLOWING} tokens the same")
    return ran and difference < 5e-3 and same == FOLLOWING  # GELU is a table of f16 there


def same_file(a: Path, b: Path) -> bool:
    """Whether two GGUF files have the same metadata and the same tensors' bytes, in the same order."""
    with open_gguf(a) as one, open_gguf(b) as other:
        return (
            one.metadata_bytes == other.metadata_bytes
            and list(one.tensors) == list(other.tensors)
            and all(one.tensors[n].type == other.tensors[n].type for n in one.tensors)
            and all(np.array_equal(one.data(n), other.data(n)) for n in one.tensors)
        )


def check_type(name: str, folder: Path, python: str) -> bool:
    CASES["llama-wide"] = CASES["llama"] | WIDE
    prompt = random_checkpoints.make("llama-wide")[2]
    plain, quantized, back = folder / "plain.gguf", folder / "m.gguf", folder / "back.gguf"
    checkpoint = random_checkpoints.write("llama-wide", folder / "c")
    convert(checkpoint, folder / "plain.eqf", "F32", allow_no_tokenizer=True)
    export_gguf(folder / "plain.eqf", plain)
    with open_gguf(plain) as file:
        matrices = [f"{t.name}:{t.shape[-1]}" for t in file.tensors.values() if len(t.shape) > 1]
    if problem := peer(python, "quantize", str(plain), str(quantized), FTYPES.get(name, name), *matrices):
        print(f"{name:10} {problem}")
        return False
    report = import_gguf(quantized, folder / "m.eqf")
    export_gguf(folder / "m.eqf", back)
    same, made = same_file(quantized, back), {t.source_type for t in report.tensors if len(t.shape) > 1}
    difference, tokens, ran = compared(python, folder / "m.eqf", back, prompt)
    compared(python, folder / "m.eqf", quantized, prompt)
    text = ran and Path(f"{quantized}.text").read_text() == Path(f"{back}.text").read_text()
    fate = f"{'byte for byte' if same else 'OTHER BYTES'}, {'the same text' if text else 'ANOTHER TEXT'} from llama.cpp"
    print(
        f"{name:8} {fate} ({', '.join(sorted(made))}); edgeq's logits within {difference:.1e}, {tokens} tokens the same"
    )
    return same and text and name in made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CASE or TYPE", help="[default: all]")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama_cpp  [default: this]")
    options = parser.parse_args()
    cases = [case for case in CASES if case not in REFUSED]
    failed = []
    for name in options.names or [*cases, *TYPES]:
        with tempfile.TemporaryDirectory() as folder:
            check = check_type if name in TYPES else check_architecture
            if not check(name, Path(folder), options.peer_python):
                failed.append(name)
    if failed:
        sys.exit(f"not alike: {', '.join(failed)}")


if __name__ == "__main__":
    main()
