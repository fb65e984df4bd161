"""What must have the same bits on every CPU: run here and in emulated processes by arm_emulation.py.

Imports neither Numba nor a compiler: kernels come from a library that was built ahead of time, or from the cache.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHAPES = ((16, 32), (48, 256), (37, 288), (5, 96), (64, 576))
TOKENS = (1, 2, 9)
PROMPT = np.random.RandomState(3).randint(1, 2048, 37)
SPLITS = ((1, 37), (2, 37), (3, 7), (2, 1))  # threads, tokens of the prompt at once
TEXT = "Once upon a time"


@dataclass(frozen=True)
class Model:
    """A checkpoint (the bundled model, a real one that may be absent, or a case of tests/models), its type, its KV."""

    checkpoint: str
    type: str
    kv: str | None = None

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.checkpoint, self.type, self.kv) if part)

    def path(self, folder: Path) -> Path:
        return folder / f"{self.checkpoint}-{self.type}.eqf"


# Real ones say a text. The others are there for kernels that those have not: experts and their routing, short
# convolutions, layer norms, activations, windows, capped scores, learned positions, every element of the KV cache.
REAL = ("tiny_model", "babyllama105")
MODELS = (
    *(Model("tiny_model", type) for type in ("Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "I8_R", "F16")),
    Model("tiny_model", "Q5_K_M", "q8_0"),
    Model("babyllama105", "Q4_K_M"),
    Model("babyllama105", "Q8_0", "q8_0"),
    Model("llama-bias", "BF16", "f32"),
    Model("gemma2", "Q4_0", "q8_0"),
    Model("gemma3", "F32"),
    Model("mistral-window", "Q8_0", "q8_0"),
    Model("phi3-longrope-long", "Q8_0"),
    Model("gpt2", "Q8_0", "q8_0"),
    Model("falcon", "Q8_0", "q8_0"),
    Model("stablelm", "Q4_K_M", "f32"),
    Model("stablelm", "I8_R"),
    Model("bitnet", "Q8_0"),
    Model("lfm2-bias", "Q8_0"),
    Model("lfm3", "Q8_0"),
    Model("mixtral", "Q6_K"),
    Model("qwen2-moe", "Q4_K_M", "q8_0"),
    Model("granitemoe", "Q4_0"),
    Model("qwen3-5", "Q8_0"),
    Model("granite-4-h", "Q4_K_M"),
    Model("jamba", "Q8_0"),
    Model("rwkv7", "Q8_0"),
    Model("gemma3n", "Q8_0"),
    Model("deepseek-v2-lite", "Q8_0", "q8_0"),
    Model("minicpm3", "F16"),
    Model("persimmon", "Q8_0"),
    Model("zamba2", "Q8_0"),
    Model("recurrent-gemma", "Q8_0"),
    Model("kimi-linear", "Q8_0"),
)


# What goes on from a text that this machine saved: keys and values of two kinds, windows, convolutions, states.
RESUMED = (
    Model("tiny_model", "Q4_K_M"),
    Model("tiny_model", "Q5_K_M", "q8_0"),
    Model("gemma3", "F32"),
    Model("lfm2-bias", "Q8_0"),
    Model("qwen3-5", "Q8_0"),
    Model("granite-4-h", "Q4_K_M"),
    Model("rwkv7", "Q8_0"),
)
SAVED, TURN, FURTHER, RESUMED_CONTEXT = 280, 6, 24, 400  # tokens: of the first prompt, its answer, the next one, in all
SAMPLING = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}  # all of them drawn from


def convert_models(root: Path, data: Path, folder: Path) -> list[str]:
    """Write the files of MODELS into `folder`. Returns the real checkpoints that are not in `data`."""
    sys.path.insert(0, str(root / "tests" / "models"))
    import random_checkpoints

    from edgeq.quantize.pipeline import convert

    absent = []
    for model in MODELS:
        source = {"tiny_model": root / "tools" / "tiny_model", "babyllama105": data / "models" / "babyllama105"}
        checkpoint = source.get(model.checkpoint, folder / model.checkpoint)
        if model.checkpoint not in source:
            random_checkpoints.write(model.checkpoint, checkpoint)
        if not checkpoint.is_dir():
            absent.append(model.checkpoint)
            continue
        if not model.path(folder).exists():
            convert(checkpoint, model.path(folder), model.type, allow_no_tokenizer=model.checkpoint not in source)
    return sorted(set(absent))


def results(folder: Path, saves: bool = False) -> dict[str, np.ndarray]:
    """Everything that must have the same bits, by name. Texts to be gone on with are read from `folder`; who `saves`
    writes them there, and goes on without reading them."""
    from kernel_calls import BODIES, matmul, random_panels

    from edgeq.blocks.table import BLOCK_TYPES
    from edgeq.toolchain import library

    body = next(body for body in BODIES if body.isa == library.chosen_isa())
    found: dict[str, np.ndarray] = {"body": np.array(body.isa.name)}
    for name in BLOCK_TYPES:
        for rows, columns in SHAPES:
            rng = np.random.default_rng(rows * columns)
            panels = random_panels(rng, name, rows, columns)
            for tokens in TOKENS:
                x = rng.standard_normal((tokens, columns)).astype(np.float32)
                found[f"matmul {name} {rows}x{columns} {tokens}"] = matmul(body, name, panels, rows, x)
    for model in MODELS:
        if model.path(folder).exists():
            found |= _of_model(model, model.path(folder))
    for model in RESUMED:
        found |= _resumed(model, folder, saves)
    return found


def _of_model(model: Model, path: Path) -> dict[str, np.ndarray]:
    """Logits with several numbers of threads and splits of the prompt, and the greedy text."""
    import edgeq
    from edgeq.container.reader import open_file
    from edgeq.runtime.session import Session

    found = {}
    with open_file(path) as file:
        prompt = [int(token) for token in PROMPT % file.tensors["token_embd.weight"].shape[0]]
        for threads, step in SPLITS if model.checkpoint in REAL else SPLITS[1:3]:
            with Session(file, context=64, threads=threads, kv=model.kv) as session:
                parts = [session.eval(prompt[i : i + step], all_logits=True) for i in range(0, len(prompt), step)]
            found[f"logits {model.name} threads={threads} step={step}"] = np.concatenate(parts)
    if model.checkpoint in REAL:
        with edgeq.load(path, threads=2, kv=model.kv) as loaded:
            text = "".join(loaded.generate(TEXT, max_tokens=40, temperature=0.0))
        found[f"text {model.name}"] = np.frombuffer(text.encode(), np.uint8)
    return found


def _resumed(model: Model, folder: Path, saves: bool) -> dict[str, np.ndarray]:
    """The second turn of a conversation: tokens drawn, logprobs, and how much of the first one was not computed."""
    import edgeq

    path, turn = folder / f"{model.name}.eqp", [5, 6, 7]
    with edgeq.load(model.path(folder), context=RESUMED_CONTEXT, threads=2, kv=model.kv) as loaded:
        if saves:
            prompt = np.random.RandomState(4).randint(0, loaded.vocab_size, SAVED).tolist()
            first = loaded.generate_tokens(prompt, TURN, **SAMPLING)
            text = [*prompt, *first]
            known = loaded.save_text(path, {"tokens": text})
            answer = loaded.generate_tokens([*text, *turn], FURTHER, logprobs=3, **SAMPLING)
            list(answer)
        else:
            text = loaded.load_prefix(path)["tokens"]
            answer = loaded.generate_tokens([*text, *turn], FURTHER, logprobs=3, **SAMPLING)
            list(answer)
            known = answer.timings.cached_tokens
    said = [(one.logprob, *(each for _, each in one.top)) for one in answer.logprobs]
    return {
        f"resumed {model.name}": np.array(answer.tokens),
        f"resumed {model.name}, logprobs": np.array(said),
        f"resumed {model.name}, known": np.array([known]),
    }


def compare(folder: Path, expected_body: str) -> int:
    """The emulated process: compare with what was found outside. Returns the number of differences."""
    expected, wrong = np.load(folder / "expected.npz"), 0
    found = results(folder)
    if str(found["body"]) != expected_body:
        print(f"the body {found['body']} was chosen, not {expected_body}")
        wrong += 1
    if found.keys() != set(expected.files):
        print(f"other results than outside: {sorted(found.keys() ^ set(expected.files))}")
        wrong += 1
    for name in found.keys() & set(expected.files) - {"body"}:
        if not np.array_equal(found[name].view(np.uint8), expected[name].view(np.uint8)):
            print(f"DIFFERS: {name}")
            wrong += 1
    loaded = {"numba", "llvmlite"} & set(sys.modules)
    if loaded:
        print(f"{' and '.join(loaded)} was imported")
        wrong += 1
    texts = {name: bytes(value).decode() for name, value in found.items() if name.startswith("text ")}
    print(f"{len(found) - 1} results, {len(texts)} of them texts, {wrong} wrong", end="")
    for name in ("text tiny_model-Q4_K_M", "text babyllama105-Q4_K_M"):
        if name in texts:
            print(f"; {name.removeprefix('text ')}: {texts[name][:48]!r}", end="")
    print()
    return wrong


def run_tests(files: list[str]) -> int:
    """The emulated process: tests of kernels, on the body of the library alone, with nothing compiled here."""
    import kernel_calls
    import pytest

    from edgeq.toolchain import library

    library.no_compiler = lambda: "Numba is not to be used"
    kernel_calls.BODIES[:] = [body for body in kernel_calls.BODIES if body.isa == library.chosen_isa()]
    return int(pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "-r", "fE", *files]))


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    code = run_tests(rest) if kind == "tests" else min(1, compare(Path(rest[0]), rest[1]))
    sys.stdout.flush()
    os._exit(code)  # what Python does at its end takes seconds in an emulator
