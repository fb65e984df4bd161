"""Write tests/golden/images.npz, gemma_images.npz, gemma4_images.npz, lfm2_images.npz: what transformers makes of the
pictures of tests/seeing_model.py with that model, and with those of tests/seeing_gemma.py and seeing_gemma4.py, and of
tests/seeing_lfm2.py with that, in float32.

    python tools/make_image_golden.py [images] [gemma_images] [gemma4_images] [lfm2_images]

Needs torch, transformers and Pillow below 13, which resizes some images in another order, lfm2_images also torchvision
and a CPU with AVX2, without which that resizes in another way. Of every picture NAME:
`NAME pixels` (sha256 of the processor's values, f32 [tiles, 3, side, side]), `NAME rows` (what the model makes of it),
`NAME prompt` (ids of a chat about it), `NAME logits` (of the last of these), `NAME greedy` (the tokens that follow).

images: also `NAME grid` (rows and columns), all as `plain NAME` of some where images are not split, and `filter N`,
digests of a picture resized by Pillow's filter N to other sizes.
gemma_images: also of several pictures in one message, as `NAME NAME`.
gemma4_images: the same of two models, as `MODEL NAME NAME`; `pixels` is of all patches, and of rows every seventh.
lfm2_images: the same, as `NAME+NAME`; pixels are those of all patches, f32 [patches, side * side * 3], rows every
fourth value; `plain NAME rows` are of the other projector, `whole NAME` of images that are not split; `grids` are what
the processor makes of many sizes and settings (height, width, least, most and side of tiles, least and most tokens:
rows, columns, height and width of the whole), `stretched` positions of a square as of other rectangles, `filter N`
as of images, by torchvision.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import seeing_gemma  # noqa: E402
import seeing_gemma4  # noqa: E402
import seeing_lfm2  # noqa: E402
import seeing_model  # noqa: E402
from seeing_model import QUESTION, SIZES, picture  # noqa: E402

RESIZED = ((40, 61), (200, 31), (120, 50), (9, 300))
GREEDY = 12
TALKS = (*([name] for name in SIZES), ["wide", "square"], ["tall", "tall", "narrow"])
# a text's ids [1, tokens] and what else a processor gave -> logits [tokens, vocabulary]
Logits = Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


def sha256(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def opened(folder: Path) -> Any:
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if any(info.values()):
        raise SystemExit(f"not as transformers wants it: {info}")
    return model.eval()


def given(reader: Any, names: Sequence[str], picture: Callable[[str], np.ndarray] = picture) -> dict[str, torch.Tensor]:
    """What a processor makes of a chat about pictures."""
    parts = [{"type": "image"} for _ in names]
    talk = [{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}]
    prompt = reader.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    images = [[Image.fromarray(picture(name)) for name in names]]
    return dict(reader(images=images, text=[prompt], return_tensors="pt", add_special_tokens=False))


def told(label: str, found: dict[str, Any], logits_of: Logits, given: dict[str, torch.Tensor]) -> None:
    """Prompt, logits and greedy text."""
    ids, following = given["input_ids"], list[int]()
    logits = logits_of(ids, given)
    found[f"{label} prompt"], found[f"{label} logits"] = ids[0].numpy(), logits[-8:].numpy()
    for _ in range(GREEDY):
        following.append(int(logits[-1].argmax()))
        ids = torch.cat([ids, torch.tensor([following[-1:]])], dim=1)
        logits = logits_of(ids, given)
    found[f"{label} greedy"] = np.array(following)
    print(f"{label}: {len(found[f'{label} rows'])} rows, then {following}")


def idefics3(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": np.array(seeing_model.digest())}
    for number in (1, 2, 3):
        image = Image.fromarray(picture("wide"))
        resized = [np.array(image.resize((w, h), resample=number)) for h, w in RESIZED]
        found[f"filter {number}"] = np.array([sha256(one) for one in resized])
    model = opened(seeing_model.write(folder))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    def logits_of(ids: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = {key: given[key] for key in ("pixel_values", "pixel_attention_mask")}
        logits: torch.Tensor = model(input_ids=ids, **pixels).logits[0]
        return logits

    for name, split in [*((name, True) for name in SIZES), ("wide", False), ("tall", False)]:
        settings = {**seeing_model.PREPROCESSOR, "do_image_splitting": split}
        settings.pop("image_processor_type")
        images = Idefics3ImageProcessorPil(**settings)
        reader = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=seeing_model.TEMPLATE)
        label, own = name if split else f"plain {name}", given(reader, [name])
        cut = images(Image.fromarray(picture(name)), return_row_col_info=True, return_tensors="np")
        found[f"{label} grid"] = np.array([cut["rows"][0][0], cut["cols"][0][0]])
        found[f"{label} pixels"] = np.array(sha256(own["pixel_values"][0].numpy()))
        rows = model.model.get_image_features(own["pixel_values"], own["pixel_attention_mask"])
        found[f"{label} rows"] = torch.cat(list(rows.pooler_output)).numpy()
        told(label, found, logits_of, own)
    return found


def gemma3(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": np.array(seeing_gemma.digest())}
    model = opened(seeing_gemma.write(folder))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    settings = {**seeing_gemma.PREPROCESSOR}
    settings.pop("image_processor_type")
    images = Gemma3ImageProcessorPil(**settings)
    reader = Gemma3Processor(images, tokenizer, seeing_gemma.TEMPLATE, image_seq_length=seeing_gemma.ROWS)

    def logits_of(ids: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        kinds = torch.zeros_like(ids)
        kinds[:, : given["token_type_ids"].shape[1]] = given["token_type_ids"]
        logits: torch.Tensor = model(input_ids=ids, pixel_values=given["pixel_values"], token_type_ids=kinds).logits[0]
        return logits

    for names in TALKS:
        label, own = " ".join(names), given(reader, names)
        found[f"{label} pixels"] = np.array(sha256(own["pixel_values"].numpy()))
        found[f"{label} rows"] = model.model.get_image_features(own["pixel_values"]).pooler_output.flatten(0, 1).numpy()
        told(label, found, logits_of, own)
    return found


class Reader(Gemma4Processor):  # type: ignore[misc]
    """Without a reader of videos, which needs torchvision."""

    def check_argument_for_proper_class(self, *given: Any) -> Any:
        return None if given[1] is None else super().check_argument_for_proper_class(*given)


def gemma4(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"digest": np.array(seeing_gemma4.digest())}
    for which in seeing_gemma4.CONFIGS:
        model = opened(seeing_gemma4.write(folder / which, which))
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder / which)
        settings = seeing_gemma4.processor(which)
        settings.pop("image_processor_type")
        images, audio = Gemma4ImageProcessorPil(**settings), Gemma4AudioFeatureExtractor()
        reader = Reader(audio, images, tokenizer, None, chat_template=seeing_gemma4.TEMPLATE)

        def logits_of(ids: torch.Tensor, given: dict[str, torch.Tensor], model: Any = model) -> torch.Tensor:
            kinds = torch.zeros_like(ids)
            kinds[:, : given["mm_token_type_ids"].shape[1]] = given["mm_token_type_ids"]
            seen = {key: given[key] for key in ("pixel_values", "image_position_ids")}
            logits: torch.Tensor = model(input_ids=ids, mm_token_type_ids=kinds, **seen).logits[0]
            return logits

        for names in TALKS:
            label, own = " ".join([which, *names]), given(reader, names)
            pixels, places = own["pixel_values"], own["image_position_ids"]
            patches = pixels[(places >= 0).all(dim=-1)]
            found[f"{label} pixels"] = np.array(sha256(patches.numpy()))
            rows = model.model.get_image_features(pixels, places).pooler_output
            found[f"{label} counts"] = np.array([len(one) for one in rows])
            found[f"{label} rows"] = torch.cat(list(rows))[::7].numpy()
            told(label, found, logits_of, own)
    return found


def lfm2_vl(folder: Path) -> dict[str, Any]:
    from torchvision.transforms.v2 import functional as torchvision
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor
    from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor
    from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

    if not any(name in torch.backends.cpu.get_cpu_capability() for name in ("AVX2", "AVX512")):
        raise SystemExit("this CPU has no AVX2: torchvision would resize in another way")
    found: dict[str, Any] = {"digest": np.array(seeing_lfm2.digest()), "grids": grids(Lfm2VlImageProcessor())}
    wide = torch.from_numpy(picture("wide")).permute(2, 0, 1)
    for number, mode in ((2, "bilinear"), (3, "bicubic")):
        kind = torchvision.InterpolationMode(mode)
        made = [torchvision.resize(wide, size, interpolation=kind, antialias=True) for size in RESIZED]
        found[f"filter {number}"] = np.array([sha256(one.permute(1, 2, 0).numpy()) for one in made])
    table = torch.from_numpy(np.random.RandomState(5).random_sample((7, 7, 3)).astype(np.float32))
    shapes = torch.tensor(seeing_lfm2.SHAPES)
    stretched = Siglip2VisionEmbeddings.resize_positional_embeddings(table, shapes, int(shapes.prod(-1).max()))
    parts = [one[: down * across] for one, (down, across) in zip(stretched, seeing_lfm2.SHAPES, strict=True)]
    found["stretched"] = torch.cat(parts).numpy()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(seeing_lfm2.write(folder / "m"))

    def rows_of(model: Any, own: dict[str, torch.Tensor]) -> np.ndarray:
        keys = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
        rows = model.model.get_image_features(**{key: own[key] for key in keys})
        every: np.ndarray = torch.cat(list(rows.pooler_output)).numpy()
        return every[:, ::4]

    model = opened(folder / "m")

    def logits_of(ids: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        more = {key: value for key, value in given.items() if key not in ("input_ids", "attention_mask")}
        logits: torch.Tensor = model(input_ids=ids, **more).logits[0]
        return logits

    talks = [*seeing_lfm2.SIZES, "wide+as it is", "tall+tall+narrow"]
    other = opened(seeing_lfm2.write(folder / "plain", **seeing_lfm2.PLAIN))
    for label, changed in [*((label, {}) for label in talks), ("whole wide", seeing_lfm2.WHOLE)]:
        images = Lfm2VlImageProcessor(**{**seeing_lfm2.PREPROCESSOR, **changed})
        reader = Lfm2VlProcessor(images, tokenizer, seeing_lfm2.TEMPLATE)
        own = given(reader, label.removeprefix("whole ").split("+"), seeing_lfm2.picture)
        pixels = [one[seen == 1] for one, seen in zip(own["pixel_values"], own["pixel_attention_mask"], strict=True)]
        found[f"{label} pixels"] = np.array(sha256(torch.cat(pixels).numpy()))
        found[f"{label} rows"] = rows_of(model, own)
        told(label, found, logits_of, own)
        if label == "tall":
            found[f"plain {label} rows"] = rows_of(other, own)
    return found


def grids(processor: Any) -> np.ndarray:
    """Of images of random sizes."""
    random, found = np.random.RandomState(3), []
    while len(found) < 600:
        height, width = (int(edge) for edge in np.exp(random.uniform(0, 8, 2)))
        if random.random_sample() < 0.3:  # of shapes that are as near to one grid as to another
            one, other = (random.randint(1, 6, 2) for _ in range(2))
            times = int(random.randint(5, 60))
            ratio = one[0] / one[1] + other[0] / other[1]
            height = 2 * int(one[1] * other[1]) * times
            width = round(height * ratio / 2)
        fewest, side, least = int(random.randint(2, 5)), int(random.choice([64, 512])), int(random.randint(1, 90))
        most_tiles, most = fewest + int(random.randint(0, 9)), least + int(random.randint(0, 300))
        whole = processor.smart_resize(height, width, 2, least, most, 16)[::-1]
        rows = columns = 1
        if processor._is_image_too_large(height, width, most, 16, 2, 2.0):
            columns, rows = processor._get_grid_layout(height, width, fewest, most_tiles, side)[:2]
        found.append((height, width, fewest, most_tiles, side, least, most, rows, columns, *whole))
    return np.array(found, np.int32)


FAMILIES = {"images": idefics3, "gemma_images": gemma3, "gemma4_images": gemma4, "lfm2_images": lfm2_vl}


def main() -> None:
    for name in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            found = FAMILIES[name](Path(scratch))
        np.savez_compressed(GOLDEN / f"{name}.npz", **dict(sorted(found.items())))


if __name__ == "__main__":
    main()
