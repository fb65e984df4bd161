"""Write tests/golden/images.npz: what transformers makes of the pictures of tests/seeing_model.py, in float32.

    python tools/make_image_golden.py

Needs torch, transformers and Pillow below 13, which resizes some images in another order. Of every picture NAME:
`NAME grid` (rows and columns), `NAME pixels` (sha256 of the processor's values, f32 [tiles, 3, side, side]),
`NAME rows` (what the model makes of it), `NAME prompt` (ids of a chat about it), `NAME logits` (of the last eight of
these), `NAME greedy` (the tokens that follow). The same as `plain NAME` of some where images are not split, and
`filter N`, digests of a picture resized by Pillow's filter N to other sizes.
"""

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden" / "images.npz"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import seeing_model  # noqa: E402
from seeing_model import PREPROCESSOR, QUESTION, SIZES, TEMPLATE, picture  # noqa: E402

RESIZED = ((40, 61), (200, 31), (120, 50), (9, 300))
GREEDY = 12


def sha256(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def processor(folder: Path, **settings: Any) -> Idefics3Processor:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    given = {**PREPROCESSOR, **settings}
    given.pop("image_processor_type")
    images = Idefics3ImageProcessorPil(**given)
    return Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=TEMPLATE)


def main() -> None:
    found: dict[str, Any] = {"digest": np.array(seeing_model.digest())}
    for number in (1, 2, 3):
        image = Image.fromarray(picture("wide"))
        resized = [np.array(image.resize((w, h), resample=number)) for h, w in RESIZED]
        found[f"filter {number}"] = np.array([sha256(one) for one in resized])
    with tempfile.TemporaryDirectory() as scratch:
        folder = seeing_model.write(Path(scratch))
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        if any(info.values()):
            raise SystemExit(f"not as transformers wants it: {info}")
        model.eval()
        for name, split in [*((name, True) for name in SIZES), ("wide", False), ("tall", False)]:
            reader = processor(folder, do_image_splitting=split)
            label = name if split else f"plain {name}"
            image = Image.fromarray(picture(name))
            talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
            prompt = reader.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
            given = reader(images=[[image]], text=[prompt], return_tensors="pt", add_special_tokens=False)
            cut = reader.image_processor(image, return_row_col_info=True, return_tensors="np")
            found[f"{label} grid"] = np.array([cut["rows"][0][0], cut["cols"][0][0]])
            found[f"{label} pixels"] = np.array(sha256(given["pixel_values"][0].numpy()))
            with torch.no_grad():
                rows = model.model.get_image_features(given["pixel_values"], given["pixel_attention_mask"])
                found[f"{label} rows"] = torch.cat(list(rows.pooler_output)).numpy()
                ids = given["input_ids"]
                pixels = {key: given[key] for key in ("pixel_values", "pixel_attention_mask")}
                logits = model(input_ids=ids, **pixels).logits[0]
                found[f"{label} prompt"], found[f"{label} logits"] = ids[0].numpy(), logits[-8:].numpy()
                following = []
                for _ in range(GREEDY):
                    token = int(logits[-1].argmax())
                    following.append(token)
                    ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
                    logits = model(input_ids=ids, **pixels).logits[0]
                found[f"{label} greedy"] = np.array(following)
            print(f"{label}: {len(found[f'{label} rows'])} rows, then {following}")
    np.savez_compressed(GOLDEN, **dict(sorted(found.items())))


if __name__ == "__main__":
    main()
