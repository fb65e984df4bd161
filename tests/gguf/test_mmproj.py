"""Text models of GGUF with what they see with: the same as through safetensors, tensor by tensor and in a chat."""

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import seeing_gemma
import seeing_lfm2
import seeing_model
from mmproj_files import write
from PIL import Image
from seeing_model import QUESTION, picture

import edgeq
from edgeq.cli import main
from edgeq.container.reader import open_file
from edgeq.engine.seeing import can_see, text_alone
from edgeq.errors import FormatError, UnsupportedError, UsageError
from edgeq.gguf.exporter import export_gguf
from edgeq.gguf.import_images import might_see
from edgeq.gguf.importer import import_gguf
from edgeq.models import images
from edgeq.quantize.pipeline import convert
from edgeq.store.model_cache import cached, runnable

FAMILIES = {"gemma3": seeing_gemma, "idefics3": seeing_model, "lfm2": seeing_lfm2}


def write_mmproj(path: Path, family: str, change: Any = None, kind: type = np.float32, most: int = 0) -> Path:
    """As llama.cpp's converter does it: names, shapes, keys; `change` may change tensors and keys before. `most`: see
    mmproj_files."""
    source, seen = FAMILIES[family], images(FAMILIES[family].CONFIG)
    assert seen is not None
    weights = seeing_model.weights() if family == "idefics3" else source.weights({})
    vision, tensors = source.CONFIG["vision_config"], {}
    for name, tensor in seen.tensors.items():
        values = weights[tensor.parts[0].source] + np.float32(tensor.add)
        if tensor.parts[0].channels > 1:  # pixel by pixel
            patch = vision["patch_size"]
            values = values.reshape(-1, patch, patch, 3).transpose(0, 3, 1, 2).copy()
        tensors[name] = values.astype(kind if values.ndim > 1 and "position_embd" not in name else np.float32)
    keys: dict[str, Any] = {
        "clip.projector_type": family,
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        "clip.vision.projection_dim": 1,
        "clip.vision.image_size": vision.get("image_size", 256),
        "clip.vision.patch_size": vision["patch_size"],
        "clip.vision.embedding_length": vision["hidden_size"],
        "clip.vision.feed_forward_length": vision["intermediate_size"],
        "clip.vision.block_count": vision["num_hidden_layers"],
        "clip.vision.attention.head_count": vision["num_attention_heads"],
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.projector.scale_factor": 2,
        "clip.vision.image_mean": source.PREPROCESSOR["image_mean"],
        "clip.vision.image_std": source.PREPROCESSOR["image_std"],
    }
    if family == "idefics3":
        keys["clip.vision.preproc_image_size"] = source.PREPROCESSOR["size"]["longest_edge"]
    if change:
        change(keys, tensors)
    return write(path, keys, tensors, most)


@pytest.fixture(scope="module", autouse=True)
def layers_that_gguf_has() -> Iterator[None]:
    """Of Gemma five local ones and a global one, whose scores are scaled by what a head is long; of LFM2-VL patches of
    which tiles consist, where nothing is said of these."""
    with pytest.MonkeyPatch.context() as patch:
        kinds = ["sliding_attention"] * 5 + ["full_attention"]
        for key, value in {"num_hidden_layers": 6, "layer_types": kinds, "query_pre_attn_scalar": 24}.items():
            patch.setitem(seeing_gemma.CONFIG["text_config"], key, value)
        patch.setitem(seeing_lfm2.CONFIG["vision_config"], "patch_size", 16)
        cut = {"do_image_splitting": True, "encoder_patch_size": 16}  # and otherwise as all that are published
        norms = {key: seeing_lfm2.PREPROCESSOR[key] for key in ("image_mean", "image_std")}
        patch.setattr(seeing_lfm2, "PREPROCESSOR", {**norms, **cut})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("mmproj")
    for name, source in FAMILIES.items():
        convert(source.write(found / name), found / f"{name}.eqf", "F32")
        export_gguf(found / f"{name}.eqf", found / f"{name}.gguf")
    return found


def told(path: Path, template: str) -> tuple[list[int], str]:
    parts = [{"type": "image", "image": picture("wide")}, {"type": "text", "text": QUESTION}]
    talk = [{"role": "user", "content": parts}]
    with edgeq.load(path, threads=2, chat_template=template) as model:
        return model.chat_tokens(talk), model.chat(talk, 8, temperature=0).text


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_as_through_safetensors(folder: Path, tmp_path: Path, family: str) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", family)
    import_gguf(folder / f"{family}.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    with open_file(tmp_path / "m.eqf") as found, open_file(folder / f"{family}.eqf") as expected:
        assert found.tensors.keys() == expected.tensors.keys()
        for name in found.tensors:
            np.testing.assert_array_equal(found.data(name), expected.data(name), err_msg=name)
    template = FAMILIES[family].TEMPLATE
    assert told(tmp_path / "m.eqf", template) == told(folder / f"{family}.eqf", template)


def test_another_projector(folder: Path, tmp_path: Path) -> None:
    """Without a norm and biases, which only the tensors tell."""

    def less(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        for name in ("mm.input_norm.weight", "mm.input_norm.bias", "mm.1.bias", "mm.2.bias"):
            del tensors[name]

    import_gguf(folder / "lfm2.gguf", tmp_path / "m.eqf", mmproj=write_mmproj(tmp_path / "mmproj.gguf", "lfm2", less))
    with open_file(tmp_path / "m.eqf") as file:
        assert {name for name in file.tensors if name.startswith("mm.")} == {"mm.1.weight", "mm.2.weight"}
    assert told(tmp_path / "m.eqf", seeing_lfm2.TEMPLATE) != told(folder / "lfm2.eqf", seeing_lfm2.TEMPLATE)


def test_halves(folder: Path, tmp_path: Path) -> None:
    """Matrices of F16 stay so, the turned one too."""
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3", kind=np.float16)
    import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    with open_file(tmp_path / "m.eqf") as file:
        types = {name: info.type for name, info in file.tensors.items() if name.startswith(("v.", "mm."))}
    assert (
        types["v.patch_embd.weight"] == types["mm.input_projection.weight"] == types["v.blk.1.attn_q.weight"] == "F16"
    )
    assert types["v.position_embd.weight"] == types["mm.soft_emb_norm.weight"] == "F32"
    assert told(tmp_path / "m.eqf", seeing_gemma.TEMPLATE)[1]


def test_older_files_that_call_matrices_by_each_others_name(folder: Path, tmp_path: Path) -> None:
    def swap(keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "ffn_up" in name]:
            other = name.replace("ffn_up", "ffn_down")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3", swap)
    import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    with open_file(tmp_path / "m.eqf") as found, open_file(folder / "gemma3.eqf") as expected:
        for name in found.tensors:
            np.testing.assert_array_equal(found.data(name), expected.data(name), err_msg=name)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        (lambda keys, _: keys.update({"clip.projector_type": "pixtral"}), UnsupportedError, "projector_type 'pixtral'"),
        (lambda keys, _: keys.update({"clip.projector_type": ["gemma3"]}), UnsupportedError, "projector_type"),
        (lambda keys, _: keys.update({"clip.vision.image_std": [0.5, 0.0, 0.5]}), UnsupportedError, "image_std"),
        (lambda keys, _: keys.update({"clip.vision.projector.scale_factor": 2.5}), FormatError, "its sizes of images"),
        (lambda keys, _: keys.pop("clip.use_gelu"), UnsupportedError, "clip.use_gelu None"),
        (lambda keys, _: keys.pop("clip.vision.patch_size"), FormatError, "has no clip.vision.patch_size"),
        (lambda keys, _: keys.update({"clip.vision.patch_size": 0}), FormatError, "its sizes of images and patches"),
        (lambda keys, _: keys.update({"clip.vision.image_mean": [0.5]}), FormatError, "three numbers are needed"),
        (
            lambda keys, _: keys.update({"clip.vision.block_count": 4}),
            FormatError,
            "has no tensor v.blk.3.attn_q.weight",
        ),
        (lambda keys, _: keys.update({"clip.vision.embedding_length": 66}), FormatError, "does not fit its metadata"),
        (lambda _, own: own.update({"v.pre_ln.weight": own["v.post_ln.weight"]}), UnsupportedError, "has v.pre_ln"),
        (lambda _, own: own.pop("mm.soft_emb_norm.weight"), FormatError, "has no tensor mm.soft_emb_norm.weight"),
    ],
)
def test_what_cannot_be_is_refused(folder, tmp_path, change, error, what) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3", change)
    with pytest.raises(error, match=what) as raised:
        import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    assert "mmproj.gguf" in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "m.eqf").exists()


def test_files_of_another_kind(folder: Path, tmp_path: Path) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    with pytest.raises(UnsupportedError, match="the text model has no token <image_soft_token>"):
        import_gguf(folder / "idefics3.gguf", tmp_path / "m.eqf", mmproj=mmproj)
    with pytest.raises(UnsupportedError, match="is no file that a model sees with"):
        import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=folder / "gemma3.gguf")
    with pytest.raises(UnsupportedError, match=r"is what a model sees with: give the model, and this with --mmproj"):
        import_gguf(mmproj, tmp_path / "m.eqf")


def wider(_: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """As of a larger text model."""
    name = "mm.input_projection.weight"
    tensors[name] = np.repeat(tensors[name], 2, axis=1)


def test_that_of_a_model_of_another_size(folder: Path, tmp_path: Path) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3", wider)
    with pytest.raises(FormatError, match=r"not fit .* the text model: give the mmproj file of that model"):
        import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=mmproj)


def test_the_text_goes_back(folder: Path, tmp_path: Path) -> None:
    import_gguf(folder / "gemma3.gguf", tmp_path / "m.eqf", mmproj=write_mmproj(tmp_path / "mmproj.gguf", "gemma3"))
    export_gguf(tmp_path / "m.eqf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (folder / "gemma3.gguf").read_bytes()


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    arguments = ("import", folder / "gemma3.gguf", "--mmproj", mmproj, "-o", tmp_path / "m.eqf")
    assert main([str(one) for one in arguments]) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "m.eqf"), "--json"]) == 0
    facts, text = json.loads(capsys.readouterr().out), seeing_gemma.CONFIG["text_config"]
    assert (facts["layers"], facts["vocabulary"]) == (text["num_hidden_layers"], text["vocab_size"])
    with open_file(tmp_path / "m.eqf") as file:
        settings = json.loads(file.asset("preprocessor_config.json"))
        assert "v.patch_embd.weight" in file.tensors and settings["size"] == {"height": 58, "width": 58}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files made in a cache of its own; kernels stay where they are."""
    monkeypatch.setattr("edgeq.store.model_cache.folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def test_a_gguf_file_runs_with_what_it_sees_with(folder: Path, tmp_path: Path, cache: Path) -> None:
    """Made once; again when either file changes; apart from what is made of the text model alone."""
    text, mmproj = folder / "gemma3.gguf", write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    import_gguf(text, tmp_path / "m.eqf", mmproj=mmproj)
    first = runnable(text, mmproj=mmproj)
    with open_file(first) as found, open_file(tmp_path / "m.eqf") as expected:
        assert found.tensors.keys() == expected.tensors.keys() and can_see(found)
    alone = runnable(text)
    assert runnable(text, mmproj=mmproj) == first != alone
    assert [one.name for one in cached()] == ["gemma3-mmproj", "gemma3"] and not any(one.stale for one in cached())
    os.utime(mmproj, (1, 1))
    assert [one.name for one in cached() if one.stale] == ["gemma3-mmproj"]
    second = runnable(text, mmproj=mmproj)
    assert second != first and sorted(cache.glob("*.eqf")) == sorted(map(Path, (second, alone)))
    with edgeq.load(text, mmproj=mmproj, threads=2) as model:
        assert model.sees


def test_made_once_however_both_are_named(
    folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, mmproj = tmp_path / "gemma3.gguf", write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    shutil.copy(folder / "gemma3.gguf", text)
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    made = runnable("gemma3.gguf", mmproj="mmproj.gguf")
    assert not cached()[0].stale
    monkeypatch.chdir(cache)
    assert (
        runnable(text, mmproj=mmproj) == runnable(tmp_path / "link" / text.name, mmproj="../link/mmproj.gguf") == made
    )


def test_several_files_that_are_one(folder: Path, tmp_path: Path, cache: Path) -> None:
    """Known by any of them."""
    write_mmproj(tmp_path / "mmproj.gguf", "gemma3", most=30)
    parts = sorted(tmp_path.glob("mmproj-*.gguf"))
    made = {runnable(folder / "gemma3.gguf", mmproj=part) for part in parts}
    with open_file(made.pop()) as found, open_file(folder / "gemma3.eqf") as expected:
        assert found.tensors.keys() == expected.tensors.keys()
    assert len(parts) > 1 and not made
    parts[1].unlink()
    with pytest.raises(FormatError, match=r"mmproj-00002-of-0000\d\.gguf is missing"):
        runnable(folder / "gemma3.gguf", mmproj=parts[0])


def test_verbs_take_it(
    folder: Path,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    text, mmproj = folder / "gemma3.gguf", write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    Image.fromarray(picture("wide")).save(tmp_path / "wide.png")
    template = tmp_path / "template.jinja"
    template.write_text(seeing_gemma.TEMPLATE)
    asked = ["run", str(text), "-p", QUESTION, "-n", "2", "--temperature", "0"]
    asked += ["--image", str(tmp_path / "wide.png"), "--template", str(template)]
    assert main([*asked, "--mmproj", str(mmproj)]) == 0
    assert main(asked) == 2
    assert "reads text alone (a GGUF file with its --mmproj may see)" in capsys.readouterr().err
    assert main(["serve", str(text), str(tmp_path / "m.eqf"), "--mmproj", str(mmproj)]) == 2
    assert "--mmproj belongs to one model" in capsys.readouterr().err


def test_a_llama_without_a_token_for_images_is_told_nothing_of_it(tmp_path: Path, tiny_model: Path) -> None:
    convert(tiny_model, tmp_path / "m.eqf", "F32")
    export_gguf(tmp_path / "m.eqf", tmp_path / "m.gguf")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back.eqf")
    assert not might_see(tmp_path / "m.gguf")
    with open_file(tmp_path / "back.eqf") as file:
        assert text_alone(file) == f"{file.path}: reads text alone"


def test_what_has_no_mmproj_beside(folder: Path, tmp_path: Path, cache: Path) -> None:
    mmproj = write_mmproj(tmp_path / "mmproj.gguf", "gemma3")
    for name in (folder / "gemma3.eqf", folder / "gemma3", "people/model"):
        with pytest.raises(UsageError, match=r"is no GGUF file, .* leave out --mmproj"):
            runnable(name, mmproj=mmproj)
    assert runnable(tmp_path / "missing.gguf", mmproj=mmproj) == str(tmp_path / "missing.gguf")
    with pytest.raises(FormatError, match=r"config\.json: "):
        runnable(folder / "gemma3.gguf", mmproj=folder / "gemma3" / "config.json")
    with pytest.raises(UsageError, match="mmproj is 3: it must be a path"):
        edgeq.load(folder / "gemma3.gguf", mmproj=3)  # type: ignore[arg-type]


def a_repository(monkeypatch: pytest.MonkeyPatch, inside: Path) -> list[list[str]]:
    """One with the files of a folder; the result tells what is fetched of it."""
    fetched: list[list[str]] = []
    names = [SimpleNamespace(rfilename=path.name) for path in inside.iterdir()]
    monkeypatch.setattr("huggingface_hub.model_info", lambda source: SimpleNamespace(siblings=names))

    def snapshot_download(source: str, allow_patterns: list[str]) -> str:
        fetched.append(allow_patterns)
        return str(inside)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return fetched


def test_a_repository_with_what_it_sees_with(
    folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    shutil.copy(folder / "gemma3.gguf", hub / "gemma3-F32.gguf")
    for name in ("mmproj-gemma3-f32.gguf", "mmproj-gemma3-BF16.gguf", "mmproj-gemma3-f16.gguf"):
        write_mmproj(hub / name, "gemma3")
    fetched = a_repository(monkeypatch, hub)
    with edgeq.load("people/seeing", threads=2) as model:
        assert model.sees
    assert fetched == [["gemma3-F32.gguf"], ["mmproj-gemma3-f16.gguf"]]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda keys, _: keys.update({"clip.projector_type": "other"}), "projector_type 'other'"),
        (wider, "give the mmproj file of that model"),
    ],
)
def test_a_repository_whose_images_are_not_read(
    folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, change: Any, what: str
) -> None:
    hub, heard = tmp_path / "hub", list[str]()
    hub.mkdir()
    shutil.copy(folder / "gemma3.gguf", hub / "gemma3-F32.gguf")
    write_mmproj(hub / "mmproj.gguf", "gemma3", change)
    a_repository(monkeypatch, hub)
    with edgeq.load("people/seeing", threads=2, announce=heard.append) as model:
        assert not model.sees
    assert any("note: it reads text alone: " in line and what in line for line in heard)
