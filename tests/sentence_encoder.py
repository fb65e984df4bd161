"""A small random BERT with a vocabulary of letters and sentence-transformers files, as a checkpoint's folder."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "models"))

import numpy as np
import random_checkpoints
from safetensors.numpy import save_file

LETTERS = "abcdefghijklmnopqrstu"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "."]
MEAN = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
MODULES = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{path[2:] or 'Transformer'}"}
    for i, path in enumerate(("", "1_Pooling", "2_Normalize"))
]


def _texts(count: int) -> list[str]:
    """Words of the letters, from none to so many that the end is cut off."""
    random = np.random.RandomState(11)
    lengths = random.randint(0, 9, count)
    words = [["".join(random.choice([*LETTERS], 1 + random.randint(4))) for _ in range(length)] for length in lengths]
    return [" ".join(each) + "." * (i % 3) for i, each in enumerate(words)]


TEXTS = _texts(50)
QUERY = "what is cd, ab"


def write_reranker(folder: Path, case: str = "bert-rank", **config: Any) -> Path:
    """A random classifier of encoder_cases with the vocabulary of letters; `config` is added to its config.json."""
    random_checkpoints.write(case, folder)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **config}))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 24}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "[UNK]"}))
    return folder


def with_unigram(folder: Path) -> Path:
    """The folder of `write` or `write_reranker`, with a vocabulary of sentencepiece's kind in place of its own: the
    letters at a word's beginning, and all but the last within one."""
    special = VOCABULARY[:5]
    pieces = [*special, "▁", *(f"▁{c}" for c in LETTERS), *LETTERS[:-1], "."]
    scores = [0.0] * 5 + [-1.0 - i / 16 for i in range(len(pieces) - 5)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    first, last = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    text, other = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    document = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": name, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for i, name in enumerate(special)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"Regex": r"\s{2,}|[\n\r\t]"}, "content": " "},
                {"type": "NFC"},
                {"type": "Strip", "strip_left": False, "strip_right": True},
            ],
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text, last],
            "pair": [first, text, last, other, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [special.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 1, "byte_fallback": False}
        | {"vocab": [list(one) for one in zip(pieces, scores, strict=True)]},
    }
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    roles = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    settings = {"tokenizer_class": "DebertaV2Tokenizer", "model_max_length": 24, "bos_token": "[CLS]"}
    settings |= {"eos_token": "[SEP]", "mask_token": "[MASK]", "do_lower_case": False, **roles}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def with_dense(folder: Path) -> Path:
    """The folder of `write`, with two matrices behind the pooling."""
    modules = json.loads((folder / "modules.json").read_text())
    random = np.random.RandomState(5)
    for place, (columns, rows, kind) in {2: (64, 40, "activation.Tanh"), 3: (40, 24, "linear.Identity")}.items():
        path = folder / f"{place}_Dense"
        path.mkdir()
        settings = {"in_features": columns, "out_features": rows, "bias": place == 2}
        settings["activation_function"] = f"torch.nn.modules.{kind}"
        (path / "config.json").write_text(json.dumps(settings))
        weights = {"linear.weight": random.standard_normal((rows, columns)).astype(np.float32) / 8}
        if place == 2:
            weights["linear.bias"] = random.standard_normal(rows).astype(np.float32)
        save_file(weights, path / "model.safetensors")
        kind = "sentence_transformers.models.Dense"
        modules.insert(place, {"idx": place, "name": str(place), "path": path.name, "type": kind})
    modules[-1] |= {"idx": 4, "name": "4", "path": "4_Normalize"}
    (folder / "modules.json").write_text(json.dumps(modules))
    prompts = {"prompts": {"query": "ab cd: ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return folder


def write(
    folder: Path,
    pooling: dict[str, Any] | None = MEAN,
    modules: list[dict[str, Any]] | None = MODULES,
    most: int | None = 12,
    vocabulary: list[str] = VOCABULARY,
    case: str = "bert",
) -> Path:
    """The folder of a `case`; files of sentence-transformers that are None are left out."""
    random_checkpoints.write(case, folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "unk_token": "[UNK]"}))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    if most is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": most}))
    return folder
