"""The readers: what each begins with, how that is changed, and what is done with a file that comes out."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import beside
import families
import image_files
import mutate
import mutate_checkpoints
import mutate_gguf
import mutate_sealed
import mutate_texts
import seeds
import tokenizer_steps

Check = Callable[[Path], None]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello é"}]
TEXT = "Hello ab 123  \n<|im_start|> é \x00 🙂"


@dataclass(frozen=True)
class Reader:
    """`seeds(folder)`: sound files; `change(rng, data)`: one that is not; `check(path)` reads the file `name`."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    change: mutate.Mutator
    check: Check


def _eqf(path: Path) -> None:
    from edgeq.container.reader import open_file
    from edgeq.loading import load

    _show(path)
    with open_file(path) as file:
        file.verify()
    with load(path, context=32, threads=1) as model:
        model.logits([1, 2, 3])
        model.generate("ab", max_tokens=2).text  # noqa: B018


def _eqf_head(path: Path) -> None:
    """What is read of a file before its weights are."""
    from edgeq.container.reader import open_file
    from edgeq.models import architecture

    with open_file(path) as file:
        architecture(file.metadata["config"], file.path).tensors  # noqa: B018


def _gguf_head(path: Path) -> None:
    from edgeq.container.gguf_reader import open_gguf

    with open_gguf(path) as file:
        for name in file.tensors:
            file.data(name)


def _gguf(path: Path) -> None:
    from edgeq.container.gguf_reader import open_gguf
    from edgeq.gguf.exporter import export_gguf
    from edgeq.gguf.importer import import_gguf
    from edgeq.gguf.verify import verify

    _show(path)
    target = path.with_suffix(".eqf")
    import_gguf(path, target, threads=1)
    with open_gguf(path) as file:
        verify(file, threads=1)
    _eqf(target)
    export_gguf(target, path.with_name("again.gguf"))


def _show(path: Path) -> None:
    """What `edgeq show` prints: nothing that a terminal obeys."""
    from contextlib import redirect_stdout
    from io import StringIO

    from edgeq.cli.show import _print, describe

    facts = describe(path)
    json.dumps(facts)
    with redirect_stdout(StringIO()) as out:
        _print(facts)
    odd = {character for character in out.getvalue() if not character.isprintable() and character != "\n"}
    assert not odd, f"show prints {odd}"


def _safetensors(path: Path) -> None:
    from edgeq.checkpoints import safetensors_index
    from edgeq.checkpoints.files import Files

    _read_all(Files(safetensors_index.index(str(path))))


def _torch(path: Path) -> None:
    from edgeq.checkpoints import torch_index
    from edgeq.checkpoints.files import Files

    _read_all(Files(torch_index.index(str(path))))


def _read_all(files: "object") -> None:
    from edgeq.errors import CheckpointError

    failure = None
    for name, tensor in files.tensors.items():  # type: ignore[attr-defined]
        try:
            files.float_rows(name, 0, tensor.shape[0])  # type: ignore[attr-defined]
        except CheckpointError as error:
            failure = error
    files.close()  # type: ignore[attr-defined]
    if failure:
        raise failure


def _tokenizer(assets: dict[str, bytes]) -> None:
    from edgeq.text.gguf_vocabulary import tokenizer_metadata
    from edgeq.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(assets, "file", 600)
    for special in (False, True):
        ids = tokenizer.encode(TEXT, special, special)
        tokenizer.decode(ids, special)
    tokenizer_metadata(assets, 600, "file")


def _tokenizer_json(path: Path) -> None:
    _tokenizer({"tokenizer.json": path.read_bytes(), "tokenizer_config.json": seeds.tokenizer_config()})


def _tokenizer_model(path: Path) -> None:
    _tokenizer({"tokenizer.model": path.read_bytes()})


def _world(path: Path) -> None:
    from edgeq.text.world import FILE

    _tokenizer({FILE: path.read_bytes()})


def _spm_model(path: Path) -> None:
    _tokenizer({"spm.model": path.read_bytes()})


def _tokenizer_config(path: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"):
        _tokenizer({"tokenizer.json": seeds.tokenizer_json(), name: path.read_bytes()})
    _tokenizer({"tokenizer.model": seeds.tokenizer_model(), "tokenizer_config.json": path.read_bytes()})


def _config(path: Path) -> None:
    from edgeq.checkpoints.folder import read_json
    from edgeq.decode.sampling_defaults import FILE, sampling_defaults
    from edgeq.errors import EdgeqError
    from edgeq.models import SUPPORTED, architecture
    from edgeq.models.gguf import write_config
    from edgeq.models.gguf_rope import factor_tensors
    from edgeq.text.sentence import read_sentence_settings

    config, failure = read_json(path), None
    kinds = [config.get("model_type"), *SUPPORTED] if len(path.read_bytes()) % 3 == 0 else [config.get("model_type")]
    for kind in kinds:
        given = {**config, "model_type": kind}
        try:
            architecture(given, "config.json").tensors  # noqa: B018
        except EdgeqError as error:
            failure = error
            continue
        for write in (lambda given: write_config(given, "config.json", []), factor_tensors):
            with contextlib.suppress(EdgeqError):
                write(given)
    sampling_defaults({FILE: path.read_bytes()})
    read_sentence_settings({"pooling_config.json": path.read_bytes()}, True)
    if failure:
        raise failure


def _template(path: Path) -> None:
    from edgeq.text.chat import ChatTemplate

    template = ChatTemplate(path.read_text(encoding="utf-8", errors="replace"), {"bos_token": "<s>"})
    template.render(TALK)
    template.with_plain_text([{"role": "user", "content": [{"type": "text", "text": "a"}]}])


def _kernels(path: Path) -> None:
    from edgeq.toolchain import image, prebuilt

    prebuilt._examine(path)
    image.read(path)


READERS = {
    one.name: one
    for one in (
        Reader(
            "eqf",
            lambda f: [seeds.eqf(f).read_bytes(), seeds.eqf(f, "Q4_0", False).read_bytes()],
            mutate_sealed.eqf,
            _eqf,
        ),
        Reader(
            "gguf", lambda f: [seeds.gguf(f, words).read_bytes() for words in (True, False)], mutate_gguf.in_gguf, _gguf
        ),
        Reader("eqf.head", lambda f: [seeds.eqf(f, "Q4_0", False).read_bytes()], mutate_sealed.eqf, _eqf_head),
        Reader(
            "gguf.head",
            lambda f: [seeds.gguf(f, words).read_bytes() for words in (True, False)],
            mutate_gguf.in_gguf,
            _gguf_head,
        ),
        Reader("safetensors", lambda f: [seeds.safetensors()], mutate_checkpoints.safetensors, _safetensors),
        Reader("torch", lambda f: [seeds.torch()], mutate_checkpoints.torch, _torch),
        Reader("tokenizer.json", lambda f: [seeds.tokenizer_json()], tokenizer_steps.change, _tokenizer_json),
        Reader("tokenizer.model", lambda f: [seeds.tokenizer_model()], mutate_texts.tokenizer_model, _tokenizer_model),
        Reader("spm.model", lambda f: [seeds.spm_model()], mutate_texts.tokenizer_model, _spm_model),
        Reader("world", lambda f: [seeds.world()], mutate_texts.world, _world),
        Reader("tokenizer_config", lambda f: [seeds.tokenizer_config()], mutate.of_json, _tokenizer_config),
        Reader("config", lambda f: [seeds.configuration()], mutate.of_json, _config),
        Reader("config.families", families.configurations, mutate.of_json, families.read_configuration),
        Reader("checkpoint", families.checkpoints, families.in_checkpoint, families.run_checkpoint),
        Reader("template", lambda f: [seeds.TEMPLATE.encode()], mutate_texts.template, _template),
        Reader("kernels", lambda f: [seeds.kernels()], mutate_sealed.kernels, _kernels),
        Reader("prefix", beside.prefixes, beside.in_prefix, beside.read_prefix),
        Reader("adapter.peft", beside.peft, beside.in_peft, beside.read_peft),
        Reader("adapter.gguf", beside.gguf_adapter, mutate_gguf.in_gguf, beside.adapted),
        Reader("calibration", beside.calibrations, beside.in_calibration, beside.read_calibration),
        Reader("plan", beside.plans, beside.in_plan, beside.read_plan),
        Reader("requests", beside.requests, beside.in_lines, beside.answer_requests),
        Reader("texts", beside.texts, beside.in_lines, beside.read_texts),
        Reader("image", image_files.files, image_files.change, image_files.read),
        Reader("seen", beside.seen, mutate.of_json, beside.read_seen),
    )
}
