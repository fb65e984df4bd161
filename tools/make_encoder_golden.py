"""Write tests/golden/encoders.npz: last states of small random encoders, and scores of rerankers and classifiers, that
transformers computes in float32; and what sentence-transformers makes of texts.

    python tools/make_encoder_golden.py

Needs torch, transformers and sentence-transformers. Of a case: its states or its scores, and `CASE digest`, the
checkpoint's fingerprint; `pairs of texts` and `texts` are scores and vectors of tests/sentence_encoder.py's.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden" / "encoders.npz"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "models")]

import random_checkpoints  # noqa: E402
import sentence_encoder  # noqa: E402
from encoder_cases import CLASSIFIERS, ENCODERS, FIRST  # noqa: E402


def load(case: str, folder: Path) -> Any:
    """The model; SystemExit if its checkpoint lacks a tensor, or has one that transformers does not know."""
    scores = case in CLASSIFIERS
    kind = transformers.AutoModelForSequenceClassification if scores else transformers.AutoModel
    unpooled = scores or ENCODERS[case]["model_type"] in UNPOOLED
    more = {} if unpooled else {"add_pooling_layer": False}
    model, info = kind.from_pretrained(
        random_checkpoints.write(case, folder),
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
        **more,
    )
    if any(info.values()):
        raise SystemExit(f"{case}: not as transformers wants it: {info}")
    return model.eval()


# Whose models have no pooler that could be left out
UNPOOLED = ("modernbert", "electra", "deberta-v2", "gemma3_text", "eurobert", "ultrabert", "embedding_gemma2_text")


def inputs(case: str, model: Any) -> dict[str, Any]:
    """The case's prompt, as two texts where the model can tell these apart."""
    prompt, config = random_checkpoints.make(case)[2], model.config
    found = {"input_ids": torch.tensor([prompt])}
    if case in CLASSIFIERS and getattr(config, "type_vocab_size", 1) > 1:
        found["token_type_ids"] = torch.tensor([random_checkpoints.types(case)])
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):  # which would not count tokens of padding
        found["position_ids"] = torch.arange(len(prompt))[None] + config.pad_token_id + 1
    return found


def main() -> None:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in (*(name for name in ENCODERS if name not in FIRST), *CLASSIFIERS):
            model = load(case, Path(scratch) / case)
            with torch.no_grad():
                result = model(**inputs(case, model))
            values = result.logits[0] if case in CLASSIFIERS else result.last_hidden_state[0]
            found[case] = values.float().numpy()
            found[f"{case} digest"] = np.array(random_checkpoints.digest(case))
            print(f"{case}: within {np.abs(found[case]).max():.2f}")
        texts, query = sentence_encoder.TEXTS, sentence_encoder.QUERY
        cross_encoder = CrossEncoder(str(sentence_encoder.write_reranker(Path(scratch) / "reranker")))
        found["pairs of texts"] = cross_encoder.predict([(query, text) for text in texts])
        folder = sentence_encoder.write_reranker(Path(scratch) / "unigram reranker", "deberta-v2-rank")
        cross_encoder = CrossEncoder(str(sentence_encoder.with_unigram(folder)))
        found["pairs of texts in DeBERTa"] = cross_encoder.predict([(query, text) for text in texts])
        folder = sentence_encoder.write(Path(scratch) / "unigram encoder", case="deberta-v2")
        found["texts in DeBERTa"] = SentenceTransformer(str(sentence_encoder.with_unigram(folder))).encode(texts)
        encoder = SentenceTransformer(str(sentence_encoder.write(Path(scratch) / "encoder")))
        found["texts"] = encoder.encode(texts)
        pooled = {**sentence_encoder.MEAN, "include_prompt": False}
        folder = sentence_encoder.write(Path(scratch) / "dense", pooled, most=None)
        dense = SentenceTransformer(str(sentence_encoder.with_dense(folder)))
        found["texts with a prompt"] = dense.encode(texts)
        found["texts as documents"] = dense.encode(texts, prompt_name="document")
    np.savez_compressed(GOLDEN, **dict(sorted(found.items())))


if __name__ == "__main__":
    main()
