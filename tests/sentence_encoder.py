"""A small random BERT with a vocabulary of letters and sentence-transformers files, as a checkpoint's folder."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / "models"))

import random_checkpoints

LETTERS = "abcdefghijklmnopqrstu"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS), "."]
MEAN = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
MODULES = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{path[2:] or 'Transformer'}"}
    for i, path in enumerate(("", "1_Pooling", "2_Normalize"))
]


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
