"""Many calls of all kinds on one model from several threads at once, with every answer looked at.

    python tools/calling.py [--calls 100000] [--threads 4] [--minutes N]

The bundled model writes, chats, scores, embeds and tells tokens apart, with and without adapters, saves texts and
knows them again, and is closed under its users and opened anew. What a call gives must have the bits that it has when
one asks alone, on one thread; the only error there may be is that of a model that was closed, whose caller asks the
next one. Prints how many calls of each kind there were, and what memory was held after a tenth of them and at the
end; exit code 1 where an answer differs.
"""

import argparse
import gc
import json
import random
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import edgeq  # noqa: E402
from edgeq.quantize.pipeline import convert  # noqa: E402

TEXTS = (
    "Once upon a time",
    "Tom had a red ball. One day",
    "The cat",
    "It was raining, and Lily could not go out. " * 9,
)
SEEDS = 3
CONTEXT, PARALLEL = 256, 3
CLOSES = 500  # calls, as a rule, between two times that the model is closed


class Calls:
    """What is asked: `kinds` by name, each of a model, a text, a seed and an adapter or none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.adapters: list[str | None] = [None, str(adapter(folder / "one", 1)), str(adapter(folder / "two", 2))]
        self.kinds: dict[str, Callable[..., Any]] = {
            "generate": self.generate,
            "chat": self.chat,
            "score": lambda model, text, seed, lora: model.score(text, lora=lora).tobytes(),
            "logits": lambda model, text, seed, lora: model.logits(model.tokenizer.encode(text), lora=lora).tobytes(),
            "embed": lambda model, text, seed, lora: model.embed([text, text[: 5 + seed]]).tobytes(),
            "tokenize": self.tokenize,
            "save and load": self.save,
            "open and close": self.open,
        }

    def generate(self, model: edgeq.Model, text: str, seed: int, lora: list[str] | None) -> Any:
        answer = model.generate(text, max_tokens=6 + seed, temperature=0.9, seed=seed, lora=lora, logprobs=1)
        pieces = "".join(answer)
        return pieces, answer.tokens, [one.logprob for one in answer.logprobs]

    def chat(self, model: edgeq.Model, text: str, seed: int, lora: list[str] | None) -> Any:
        messages = [{"role": "user", "content": text}]
        return "".join(model.chat(messages, 4 + seed, temperature=0.0, lora=lora))

    def tokenize(self, model: edgeq.Model, text: str, seed: int, lora: list[str] | None) -> Any:
        tokens = model.tokenizer.encode(text[seed:])
        return tokens, model.tokenizer.decode(tokens)

    def save(self, model: edgeq.Model, text: str, seed: int, lora: list[str] | None) -> Any:
        """Another process's turn as well as may be: saved, known again, and gone on with."""
        path = self.folder / f"{threading.get_ident()}.eqp"
        model.save_prefix(path, text, {"text": text, "seed": seed})
        about = model.load_prefix(path)
        return about, self.generate(model, about["text"], about["seed"], None)

    def open(self, model: edgeq.Model, text: str, seed: int, lora: list[str] | None) -> Any:
        with opened(self.folder, threads=1) as other:
            return self.generate(other, text, seed, None)

    def ask(self, model: edgeq.Model, kind: str, text: str, seed: int, adapter: str | None) -> Any:
        return self.kinds[kind](model, text, seed, adapter and [adapter])

    def any(self, rng: random.Random) -> tuple[str, str, int, str | None]:
        kind = rng.choices(list(self.kinds), [8, 3, 5, 5, 4, 8, 2, 0.3])[0]
        return kind, rng.choice(TEXTS), rng.randrange(SEEDS), rng.choice([None, *self.adapters])


def adapter(folder: Path, seed: int) -> Path:
    """A random LoRA adapter of the bundled model, as PEFT keeps one."""
    folder.mkdir()
    rng, header, data = np.random.default_rng(seed), {}, b""
    for layer in range(6):
        for part, shape in (("A", (4, 192)), ("B", (192, 4))):
            values = rng.normal(0, 0.1, shape).astype(np.float32).tobytes()
            name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
            data += values
    text = json.dumps(header).encode()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def opened(folder: Path, threads: int = 2) -> edgeq.Model:
    return edgeq.load(folder / "model.eqf", context=CONTEXT, parallel=PARALLEL, threads=threads)


class Run:
    """Threads that ask `calls` of one model until there were so many."""

    def __init__(self, calls: Calls, alone: edgeq.Model, count: int, until: float) -> None:
        self.calls, self.until = calls, until
        self._alone, self._right, self._asking = alone, dict[Any, Any](), threading.Lock()
        self.model, self.left = opened(calls.folder), count
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.early, self._tenth, self._lock = 0, count - count // 10, threading.Lock()

    def work(self, seed: int) -> None:
        rng = random.Random(seed)
        while self._another():
            asked = self.calls.any(rng)
            try:
                self._ask(asked, rng)
            except BaseException:
                self.wrong.append(f"{asked}: {traceback.format_exc()}")

    def _another(self) -> bool:
        with self._lock:
            self.left -= 1
            if self.left == self._tenth:
                self.early = resident()
            return self.left >= 0 and not self.wrong and time.monotonic() < self.until

    def _ask(self, asked: tuple[str, str, int, str | None], rng: random.Random) -> None:
        if rng.random() < 1 / CLOSES:
            with self._lock:
                before, self.model = self.model, opened(self.calls.folder)
                self.counts["closed under others"] += 1
            before.close()
        while True:
            model = self.model
            try:
                found = self.calls.ask(model, *asked)
                break
            except edgeq.EdgeqError:
                if model is self.model:
                    raise
                self.counts["of a closed model, asked again"] += 1
        if found != (right := self._expected(asked)):
            self.wrong.append(f"{asked}: {str(found)[:300]} and not {str(right)[:300]}")
        with self._lock:
            self.counts[asked[0]] += 1

    def _expected(self, asked: tuple[str, str, int, str | None]) -> Any:
        """What the call gives one who asks alone."""
        with self._asking:
            if asked not in self._right:
                self._right[asked] = self.calls.ask(self._alone, *asked)
            return self._right[asked]


def resident() -> int:
    """Bytes of memory that the process holds, 0 where that cannot be told."""
    import psutil

    gc.collect()
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="(100000)")
    parser.add_argument("--threads", type=int, default=4, help="that ask (4)")
    parser.add_argument("--minutes", type=float, default=1e9, help="ask no more after that  [default: no limit]")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        convert(ROOT / "tools" / "tiny_model", Path(place) / "model.eqf", "Q8_0")
        calls, started = Calls(Path(place)), time.monotonic()
        with edgeq.load(Path(place) / "model.eqf", context=CONTEXT, threads=1) as alone:
            run = Run(calls, alone, asked.calls, started + 60 * asked.minutes)
            threads = [threading.Thread(target=run.work, args=(asked.seed + i,)) for i in range(asked.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            run.model.close()
    done = sum(run.counts[kind] for kind in calls.kinds)
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(run.counts.items())))
    print(
        f"{done} calls from {asked.threads} threads, {len(run.wrong)} wrong, {time.monotonic() - started:.0f} s; ",
        end="",
    )
    print(f"{run.early >> 20} MiB after a tenth, {resident() >> 20} at the end")
    for what in run.wrong[:3]:
        print(what)
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
