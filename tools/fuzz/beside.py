"""Files that stand beside a model, or are asked of it: seeds of them, changes, and what is done with each.

Prefixes, adapters, calibrations, plans, requests, texts. A model to try them with is made and loaded once.
"""

import asyncio
import contextlib
import json
import random
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import mutate
import mutate_checkpoints
import mutate_gguf
import numpy as np
import seeds

Rng = random.Random
TOKENS = [97, 98, 256, 99, 100] * 5


@cache
def folder() -> Path:
    """One of this process."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@cache
def model() -> Any:
    """The small model, loaded."""
    from edgeq.loading import load

    return load(seeds.eqf(folder(), "F32"), context=1024, threads=1)


@cache
def others() -> list[Any]:
    """Models whose layers keep something else: a window of positions, states."""
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "models"))
    import random_checkpoints

    from edgeq.conversion.conversion import convert
    from edgeq.loading import load

    found = []
    for case in ("gemma3", "qwen3-next"):
        made = folder() / f"{case}.eqf"
        convert(random_checkpoints.write(case, folder() / case), made, "F32", threads=1, allow_no_tokenizer=True)
        found.append(load(made, context=64, threads=1))
    return found


# ---- prefixes ----


def prefixes(_: Path) -> list[bytes]:
    made = folder() / "sound.eqp"
    model().save_prefix(made, TOKENS, {"system": "Be brief.", "text": "ab", "messages": []})
    found = [_roomy(made.read_bytes())]
    for other in others():
        other.save_prefix(made, [1, 2, 3, 4] * 5, {"text": "ab"})
        found.append(_roomy(made.read_bytes()))
    return found


def _roomy(data: bytes, more: int = 8192) -> bytes:
    """The file with room for a longer header."""
    length = struct.unpack_from("<Q", data, 12)[0]
    document = json.loads(data[24 : 24 + length])
    first = document["tokens"]["offset"]
    for entry in (document["tokens"], *(page for group in document["states"] for page in group["pages"])):
        entry["offset"] += more
    document["file_bytes"] += more
    text = json.dumps(document).encode().ljust(first + more - 24)
    return data[:12] + struct.pack("<QI", len(text), zlib.crc32(text)) + text + data[first:]


def in_prefix(rng: Rng, data: bytes) -> bytes:
    """The header changed and sealed again; or pages or tokens, with the right checksum; or any bytes."""
    if rng.random() < 0.15:
        return mutate.in_bytes(rng, data)
    length = struct.unpack_from("<Q", data, 12)[0]
    document, payload = mutate.copied(mutate.parsed(data[24 : 24 + length])), bytearray(data)
    pages = [(page, group["page_bytes"]) for group in document["states"] for page in group["pages"]]
    if rng.random() < 0.4:
        entry, nbytes = rng.choice([*pages, (document["tokens"], 4 * document["tokens"]["count"])])
        for _ in range(4):
            at = entry["offset"] + 2 * rng.randrange(nbytes // 2 - 1)
            payload[at : at + 4] = rng.choice([b"\0\0\x80\x7f", b"\0\0\xc0\xff", b"\0\x7c\0\x7e", rng.randbytes(4)])
        entry["crc32"] = f"{zlib.crc32(payload[entry['offset'] : entry['offset'] + nbytes]):08x}"
    else:
        part = rng.choice(["states", "states", "tokens", "about", None])
        changed = mutate.in_json(rng, document if part is None else document[part])
        document = changed if part is None else {**document, part: changed}
    text = mutate.text_of(document)
    if len(text) <= length:
        text = text.ljust(length)
    payload[24 : 24 + length] = text
    struct.pack_into("<QI", payload, 12, len(text), zlib.crc32(text))
    return bytes(payload)


def read_prefix(path: Path) -> None:
    """As `edgeq run --prefix` does."""
    from edgeq.cli.prefix import known
    from edgeq.container.prefix_file import PrefixFile
    from edgeq.runtime.saved import fingerprint

    file = PrefixFile(path)
    ours = next((one for one in others() if fingerprint(one.file) == file.key["model"]), model())
    file.close()
    known(path, ours)
    for _ in ours.generate_tokens(file.tokens[: ours.context - 3] or [1], 2, temperature=0.0):
        pass


# ---- adapters ----

PEFT = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj", "down_proj"],
    "rank_pattern": {r"layers\.1\..*_proj": 2},
    "alpha_pattern": {"down_proj": 8},
    "use_rslora": False,
    "base_model_name_or_path": "a/b",
    "init_lora_weights": True,
}


def _factors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    found = {}
    for layer in range(seeds.LAYERS):
        for part, (rows, columns) in (("self_attn.q_proj", (32, 32)), ("mlp.down_proj", (32, 64))):
            for which, shape in (("A", (2, columns)), ("B", (rows, 2))):
                name = f"base_model.model.model.layers.{layer}.{part}.lora_{which}.weight"
                found[name] = rng.normal(0, 0.1, shape).astype(np.float32)
    return found


def peft(_: Path) -> list[bytes]:
    return [json.dumps(PEFT).encode(), seeds.safetensors(_factors())]


def in_peft(rng: Rng, data: bytes) -> bytes:
    """The configuration, or the weights."""
    if not data.startswith(b"{"):
        return mutate_checkpoints.safetensors(rng, data)
    if rng.random() < 0.3:
        pattern = rng.choice(
            ["(a+)+$", "(.*)*x", "(", "a{1,9999}", "[", "(?R)", "(.|.)*" * 9, "\\", "(?P<x>", "p" * 9999]
        )
        return json.dumps({**PEFT, rng.choice(["rank_pattern", "alpha_pattern"]): {pattern: 2}}).encode()
    return mutate.of_json(rng, data)


def read_peft(path: Path) -> None:
    place = path.parent / "peft"
    place.mkdir(exist_ok=True)
    content = path.read_bytes()
    config, weights = peft(place)
    # a change may leave nothing of what a file begins with: what is no JSON, then, are weights
    mine = content.lstrip()[:1] == b"{"
    (place / "adapter_config.json").write_bytes(content if mine else config)
    (place / "adapter_model.safetensors").write_bytes(weights if mine else content)
    adapted(place)


def gguf_adapter(_: Path) -> list[bytes]:
    kinds = mutate_gguf.gguf
    values = [
        (b"general.architecture", (kinds.STRING, b"llama")),
        (b"general.type", (kinds.STRING, b"adapter")),
        (b"adapter.type", (kinds.STRING, b"lora")),
        (b"adapter.lora.alpha", (kinds.F32, 4.0)),
    ]
    entries: list[list[Any]] = []
    payload = b""
    for name, array in _factors().items():
        stem, which = name.removesuffix(".weight").split(".lora_")
        layer = stem.split(".")[4]
        own = "attn_q" if "q_proj" in stem else "ffn_down"
        title = f"blk.{layer}.{own}.weight.lora_{which.lower()}".encode()
        entries.append([title, list(array.shape[::-1]), 0, len(payload)])
        payload += array.tobytes() + bytes(-array.nbytes % 32)
    return [mutate_gguf.gguf_text(values, entries, payload)]


def adapted(path: Path) -> None:
    from edgeq.adapters.given import Wanted
    from edgeq.adapters.reading import added_by, read_adapter

    read_adapter(path)
    added_by([Wanted(path, 0.5)], _architecture())
    model().logits([1, 2, 3], lora=[(path, 0.5)])


@cache
def _architecture() -> Any:
    from edgeq.models import architecture

    return architecture(seeds.CONFIG, "config.json")


# ---- calibrations and plans ----


def calibrations(_: Path) -> list[bytes]:
    from edgeq.quantize.calibration import Calibration, Corpus, Statistics, Subject
    from edgeq.quantize.imatrix import write_calibration
    from edgeq.quantize.sketch import Sketch

    rng = np.random.default_rng(2)
    seen = {}
    for name, tensor in _architecture().tensors.items():
        if len(tensor.shape) == 2:
            x = rng.normal(0, 1, (40, tensor.shape[1])).astype(np.float32)
            gram = (x.T @ x / len(x)).astype(np.float32) if name.startswith("token_embd") else None
            sums, counts = (x * x).sum(0), np.array([len(x)])
            seen[name] = Statistics(sums, counts, float(x.min()), float(x.max()), Sketch.of(x), gram)
    sequences = tuple(rng.integers(0, 250, 20).astype(np.int32) for _ in range(4))
    subject, corpora = Subject.of(_architecture(), "small"), (Corpus("one", 40, 7.0), Corpus("two", 40))
    whole = Calibration("seed", seen, subject, sequences, np.array([0, 0, 1, 1], np.int32), corpora, 20)
    made = folder() / "sound.calib"
    write_calibration(made, whole)
    old = struct.pack("<i", len(seen))
    for name, one in seen.items():
        old += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 40, one.columns)
        old += one.sum_square.tobytes()
    return [made.read_bytes(), old]


def in_calibration(rng: Rng, data: bytes) -> bytes:
    """As any GGUF file; of the old form a number, or any bytes."""
    if data.startswith(b"GGUF"):
        return mutate_gguf.in_gguf(rng, data)
    if rng.random() < 0.5:
        return mutate.in_bytes(rng, data, 200)
    out, places, at = bytearray(data), [0], 4
    while at < len(data):
        length = struct.unpack_from("<i", data, at)[0]
        places += [at, at + 4 + length, at + 8 + length]
        at += 12 + length + 4 * struct.unpack_from("<i", data, at + 8 + length)[0]
    for _ in range(rng.choice([1, 1, 2])):
        struct.pack_into(
            "<i", out, rng.choice(places), rng.choice([-1, -2, 0, 1, 5, 1 << 20, (1 << 31) - 1, -(1 << 31)])
        )
    return bytes(out)


def read_calibration(path: Path) -> None:
    """Read, held against a model, and made use of."""
    from edgeq.quantize import imatrix

    found = imatrix.read_calibration(path)
    found.check(_architecture(), "small")
    _converted(found)


def _converted(calibration: Any, plan: Path | None = None) -> None:
    from edgeq.conversion.conversion import convert
    from edgeq.quantize.calibrated import IMPORTANCE, Request

    source = seeds.checkpoint(folder() / "checkpoint-True", True)
    request = Request(calibration, method=IMPORTANCE, plan=plan)
    target = folder() / "made.eqf"
    convert(source, target, "Q4_0", threads=1, request=request)
    _load(target)


def _load(path: Path) -> None:
    from edgeq.loading import load

    with load(path, context=32, threads=1) as loaded:
        loaded.logits([1, 2])


@cache
def _calibration() -> Any:
    """One without texts, as there is nothing to measure."""
    from edgeq.quantize.imatrix import read_calibration

    made = folder() / "old.dat"
    made.write_bytes(calibrations(folder())[1])
    return read_calibration(made)


def plans(_: Path) -> list[bytes]:
    from edgeq.quantize import type_plan

    made = folder() / "plan.toml"
    names = [name for name, tensor in _architecture().tensors.items() if len(tensor.shape) == 2]
    type_plan.save(type_plan.Plan({name: ("Q4_0", "Q8_0")[i % 2] for i, name in enumerate(names)}, 0.01), made)
    return [made.read_bytes()]


_TOML = [
    "[[a]]",
    "[types]",
    "a.b.c = 1",
    "= ",
    "'''",
    '"""',
    "[" * 3000,
    "x = [" + "[" * 2000,
    "divergence = nan",
    "\0",
]
_TOML += [
    "divergence = " + "9" * 400,
    "divergence = " + "9" * 5000,
    "d = 1979-05-27",
    'types = "a"',
    "a." * 3000 + "b = 1",
]
_TOML += ["divergence = '0.1'", "divergence = 0x" + "f" * 500, '"token_embd.weight" = 5', '"" = "Q8_0"', "x = {" * 999]
_TOML += ['"token_embd.weight" = "Q9"', '"token_embd.weight" = ["Q8_0"]', '"b" = "\\u001b[2J"', "é = 1", "\x1b[31m"]


def in_plan(rng: Rng, data: bytes) -> bytes:
    """Lines put in, left out, swapped; or any bytes."""
    if rng.random() < 0.3:
        return mutate.in_bytes(rng, data)
    lines = data.decode().split("\n")
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                lines.pop(at)
                lines = lines or [""]
            case 1:
                lines[at] = lines[at].split("=")[0] + "= " + rng.choice(_TOML[3:])
            case 2:
                lines[at] = lines[rng.randrange(len(lines))]
            case 3:
                lines.insert(at, rng.choice(lines) * rng.choice([1, 500]))
            case _:
                lines.insert(at, rng.choice(_TOML))
    return "\n".join(lines).encode()


def read_plan(path: Path) -> None:
    _converted(_calibration(), path)


# ---- requests and texts ----

REQUESTS = [
    ("/v1/completions", {"prompt": "ab", "max_tokens": 2, "temperature": 0, "stop": ["x"], "logprobs": 2, "seed": 3}),
    ("/v1/completions", {"prompt": [97, 98], "max_tokens": 1, "n": 2, "echo": True, "suffix": None, "user": "x"}),
    ("/v1/embeddings", {"input": ["ab", "c"], "encoding_format": "float"}),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "ab"}]}],
            "max_tokens": 2,
            "logit_bias": {"97": -1},
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": "auto",
        },
    ),
    ("/v1/responses", {"input": "ab", "max_output_tokens": 2, "instructions": "Be brief.", "temperature": 0.5}),
]


def requests(_: Path) -> list[bytes]:
    rows = [
        {"custom_id": f"r{i}", "method": "POST", "url": url, "body": body} for i, (url, body) in enumerate(REQUESTS)
    ]
    return [json.dumps(row).encode() for row in rows]


def in_lines(rng: Rng, data: bytes) -> bytes:
    """A line or two of JSON, changed."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = mutate.of_json(rng, lines[at]) if lines[at] else b"{}"
    if rng.random() < 0.1:
        lines.insert(at, rng.choice([b"", b"[" * 5000, b"{", b'"x"', b"\xff\xfe{}", b"null", lines[at]]))
    return b"\n".join(lines)


def answer_requests(path: Path) -> None:
    """As `edgeq batch` does: each line that is there has an answer of one line, never a fault of ours."""
    from edgeq.errors import EdgeqError
    from edgeq.serve.batch_files import answer_file

    target = path.with_name("answers.jsonl")
    for one in (target, target.with_name("answers.jsonl.part")):
        one.unlink(missing_ok=True)
    outcome = asyncio.run(answer_file(_application(), path, target, "fuzz", 2))
    said = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert len(said) == outcome.answered + outcome.refused
    for one in said:
        status = (one["response"] or {}).get("status_code", 400)
        assert status < 500, json.dumps(one)[-300:]
    if not outcome.answered:
        raise EdgeqError("refused")


@cache
def _application() -> Any:
    from edgeq.serve.app import application
    from edgeq.serve.guard import Rules
    from edgeq.serve.roster import Roster

    roster = Roster({"small": lambda say: model()}, 1000, 2)
    roster.load()
    return application(roster, Rules())


def texts(_: Path) -> list[bytes]:
    rows: list[Any] = [
        {"text": "ab " * 30, "language": "en", "number": 1},
        {"messages": [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "c"}]},
        {"prompt": "ab", "choices": [" c", " d"], "answer": 1},
        {"prompt": "ab", "target": " c"},
        {"ctx": "a", "ctx_a": "ab", "ctx_b": "c", "activity_label": "x", "endings": ["a", "b"], "label": "1"},
        {"goal": "ab", "sol1": "c", "sol2": "d", "label": 0},
    ]
    talk = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    return [json.dumps(row).encode() for row in [*rows, talk]]


def read_texts(path: Path) -> None:
    """As calibrate, eval, embed and a chat's /load do."""
    from edgeq.cli.chat_conversation import load
    from edgeq.cli.chat_history import HistoryFile
    from edgeq.cli.embed import lines_of
    from edgeq.conversion.passages import passages, read_text
    from edgeq.errors import EdgeqError
    from edgeq.evaluate.greedy import read_prompts
    from edgeq.evaluate.tasks import read_task
    from edgeq.evaluate.texts import cut, read_passages

    lines = path.with_name("case.jsonl")
    lines.write_bytes(path.read_bytes())
    tokenizer, failure, sound = model().tokenizer, None, 0
    for read in (
        lambda: passages([read_text(lines)], tokenizer, tokens=64, length=32),
        lambda: cut(read_passages([str(lines)]), tokenizer, 16, 2),
        lambda: read_task(lines, 5),
        lambda: read_prompts(lines, model()),
        lambda: load(lines),
        lambda: lines_of(lines),
        lambda: HistoryFile(lines).read(),
    ):
        try:
            read()
            sound += 1
        except EdgeqError as error:
            failure = error
            from messages import check_message

            assert not (what := check_message(error)), what
    if failure and sound < 3:
        raise failure


def seen(_: Path) -> list[bytes]:
    """What a file says of the text that it was calibrated with, which `edgeq drift` reads."""
    from edgeq.conversion.conversion import convert
    from edgeq.drift.seen import ASSET
    from edgeq.quantize.calibrated import IMPORTANCE, Request
    from edgeq.quantize.imatrix import read_calibration

    given = folder() / "whole.calib"
    given.write_bytes(calibrations(folder())[0])
    source = seeds.checkpoint(folder() / "checkpoint-True", True)
    made = folder() / "seen.eqf"
    request = Request(read_calibration(given), method=IMPORTANCE)
    convert(source, made, "Q4_0", threads=1, request=request)
    from edgeq.container.reader import open_file

    with open_file(made) as file:
        return [bytes(file.asset(ASSET))]


def read_seen(path: Path) -> None:
    from edgeq.drift.seen import parse

    with contextlib.suppress(FileNotFoundError):
        parse(path.read_bytes(), model().file)
