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
) -> Path:
    """The folder; files of sentence-transformers that are None are left out."""
    random_checkpoints.write("bert", folder)
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
