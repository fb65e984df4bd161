"""Images on the command line."""

import json
from functools import partial
from pathlib import Path

import pytest
import seeing_gemma
import seeing_gemma4
import seeing_model
from PIL import Image
from seeing_model import QUESTION, picture

from edgeq import load
from edgeq.container.reader import open_file
from edgeq.quantize.pipeline import convert

GREEDY = ("--temp", 0, "--max-tokens", 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("images")
    seeing_model.write(found / "m")
    convert(found / "m", found / "m.eqf", "F32")
    convert(found / "m", found / "text.eqf", "F32", vision=False)
    Image.fromarray(picture("wide")).save(found / "a picture.png")
    return found


@pytest.fixture(scope="module")
def expected(folder: Path) -> str:
    parts = [{"type": "image", "image": picture("wide")}, {"type": "text", "text": QUESTION}]
    with load(folder / "m.eqf", threads=2) as model:
        return model.chat([{"role": "user", "content": parts}], 6, temperature=0).text


def test_an_image_of_the_first_message(edgeq, folder, expected):
    result = edgeq("chat", folder / "m.eqf", *GREEDY, "--image", folder / "a picture.png", stdin=QUESTION)
    assert result == (0, expected + "\n", "")


def test_the_command(edgeq, folder, expected):
    lines = [f"/image {folder}/a picture.png {QUESTION}", "/regen", f"/save {folder}/talk.json", "/tokens", "/reset"]
    lines += [f"/image {folder}/a picture.png", QUESTION, f"/image {folder}/m.eqf", "/image", "/reset", QUESTION]
    result = edgeq("chat", folder / "m.eqf", *GREEDY, stdin="\n".join(lines))
    assert result.code == 0
    assert result.out.startswith(f"{expected}\n" * 3)
    assert not result.out[len(f"{expected}\n" * 3) :].startswith(expected), "/reset forgets the image, too"
    said = result.err.splitlines()
    assert said[0] == f"({folder}/a picture.png: 120 x 50 pixels)"
    assert said[1] == "the conversation has images, and is not saved: /reset begins another one"
    assert said[2].startswith("(2 messages: ")
    assert said[4] == f"({folder}/a picture.png: 120 x 50 pixels, shown with the next message)"
    assert said[5].startswith(f"{folder}/m.eqf: is no image that can be read")
    assert said[6] == "usage: /image FILE [QUESTION]"


def test_an_image_stays_in_the_conversation(edgeq, folder):
    lines = [f"/image {folder}/a picture.png {QUESTION}", "and now?"]
    told = edgeq("chat", folder / "m.eqf", *GREEDY, stdin="\n".join(lines)).out
    assert told != edgeq("chat", folder / "m.eqf", *GREEDY, stdin=f"{QUESTION}\nand now?").out


def test_what_cannot_be(edgeq, folder):
    image = folder / "a picture.png"
    result = edgeq("chat", folder / "text.eqf", "--image", image, stdin="x")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "text.eqf: reads text alone" in result.err
    result = edgeq("chat", folder / "m.eqf", "--image", image, "--session", folder / "s.eqp", stdin="x")
    assert (result.code, "leave out --session" in result.err) == (2, True)
    result = edgeq("chat", folder / "m.eqf", "--image", folder / "none.png", stdin="x")
    assert (result.code, "none.png: cannot be read" in result.err) == (2, True)


def test_converting(edgeq, folder):
    result = edgeq("convert", folder / "m", "-o", folder / "q.eqf", "--type", "Q8_0", "--no-calibration")
    assert result.code == 0
    assert "reads text, and nothing else" not in result.out
    result = edgeq("convert", folder / "m", "-o", folder / "t.eqf", "--type", "Q8_0", "--no-vision")
    assert "the language model is converted: it reads text, and nothing else" in result.out
    with open_file(folder / "q.eqf") as seeing, open_file(folder / "t.eqf") as blind:
        assert {name for name in seeing.tensors if not name.startswith(("v.", "mm."))} == {*blind.tensors}
        assert "v.patch_embd.weight" in seeing.tensors
    again = edgeq("convert", folder / "q.eqf", "-o", folder / "r.eqf", "--type", "Q4_K")
    assert again.code == 0
    with open_file(folder / "q.eqf") as before, open_file(folder / "r.eqf") as after:
        for name in ("v.blk.0.ffn_up.weight", "mm.model.fc.weight", "v.position_embd.weight"):
            assert (before.data(name) == after.data(name)).all()
    assert edgeq("convert", folder / "q.eqf", "-o", folder / "s.eqf", "--type", "Q4_K", "--no-vision").code == 2
    result = edgeq("export", folder / "q.eqf", "-o", folder / "q.gguf")
    assert result.code == 0
    assert "what reads images is left out" in result.out


def test_without_settings_the_text_alone_is_converted(edgeq, folder, tmp_path):
    seeing_model.write(tmp_path / "m", resample=0)
    result = edgeq("convert", tmp_path / "m", "-o", tmp_path / "m.eqf", "--type", "Q8_0", "--no-calibration")
    assert result.code == 0
    assert "reads text, and nothing else" in result.out
    assert "resample 0 is not supported" in result.out


def test_run_answers_about_an_image(edgeq, folder, expected):
    image = ("--image", folder / "a picture.png")
    assert edgeq("run", folder / "m.eqf", QUESTION, *GREEDY, *image) == (0, expected + "\n", "")
    both = json.loads(edgeq("run", folder / "m.eqf", "--json", *GREEDY, *image, *image, stdin=QUESTION).out)
    assert both["text"] != expected and both["prompt_tokens"] > 72, "rows of both"


def test_what_run_refuses_of_images(edgeq, folder):
    picture = folder / "a picture.png"
    for model, image, line in (
        ("m.eqf", folder / "none.png", f"{folder}/none.png: cannot be read: No such file or directory"),
        ("m.eqf", folder / "m.eqf", f"{folder}/m.eqf: is no image that can be read"),
        ("text.eqf", picture, f"{folder}/text.eqf: reads text alone, and the conversation has images"),
    ):
        result = edgeq("run", folder / model, QUESTION, "--image", image)
        assert (result.code, result.out) == (2, "") and result.err.startswith(f"edgeq: {line}")
    result = edgeq("run", folder / "m.eqf", "--raw", QUESTION, "--image", picture)
    assert result == (
        2,
        "",
        "edgeq: --raw completes plain text, in which no image stands: leave out --image, or --raw\n",
    )


@pytest.mark.parametrize("write", [seeing_gemma.write, partial(seeing_gemma4.write, which="small")], ids=["3", "4"])
def test_gemma(edgeq, folder, tmp_path, write):
    """Converted, asked, and asked in a chat: the same answer."""
    write(tmp_path / "m")
    model, image = tmp_path / "m.eqf", ("--image", folder / "a picture.png")
    result = edgeq("convert", tmp_path / "m", "-o", model, "--type", "Q8_0", "--no-calibration")
    assert (result.code, "reads text, and nothing else" in result.out) == (0, False)
    told = edgeq("run", model, QUESTION, *GREEDY, *image)
    assert told.code == 0 and told.out.strip()
    assert edgeq("chat", model, *GREEDY, *image, stdin=QUESTION).out == told.out
    assert edgeq("run", model, QUESTION, *GREEDY).out != told.out
