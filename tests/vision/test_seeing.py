"""What a model makes of images, against transformers."""

from pathlib import Path

import numpy as np
import pytest
import seeing_model
from seeing_model import SIZES, picture

from edgeq.container.part_file import PartFile
from edgeq.container.reader import File, open_file
from edgeq.engine.seeing import Eyes, joined
from edgeq.errors import UsageError
from edgeq.models import images
from edgeq.quantize.pipeline import convert
from edgeq.runtime.kernel_state import needed
from edgeq.runtime.session import Session
from edgeq.vision.tiling import Tiling

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "images.npz")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing")
    seeing_model.write(folder)
    for kind in ("F32", "Q8_0", "Q4_K"):
        convert(folder, folder / f"{kind}.eqf", kind)
    return folder


def eyes(file: File, threads: int = 2) -> Eyes:
    found = images(file.metadata["config"])
    assert found is not None
    return Eyes(file, found, threads)


def rows(path: Path, name: str, threads: int = 2) -> np.ndarray:
    with open_file(path) as file:
        own = eyes(file, threads)
        try:
            return own.rows(own.look(picture(name)))
        finally:
            own.close()


def test_the_golden_file_is_of_this_model() -> None:
    assert GOLDEN["digest"] == seeing_model.digest(), "run tools/make_image_golden.py"


@pytest.mark.parametrize("name", SIZES)
def test_rows_are_those_of_transformers(made: Path, name: str) -> None:
    found = rows(made / "F32.eqf", name)
    assert found.shape == GOLDEN[f"{name} rows"].shape
    assert np.abs(found - GOLDEN[f"{name} rows"]).max() <= 1e-3


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_quantized_rows(made: Path, kind: str) -> None:
    """Near the exact ones, as what sees is Q8_0 in both; the same bits with any number of threads."""
    found, exact = rows(made / f"{kind}.eqf", "wide"), GOLDEN["wide rows"]
    assert np.sqrt(np.mean((found - exact) ** 2)) <= 0.03 * exact.std()
    np.testing.assert_array_equal(rows(made / f"{kind}.eqf", "wide", threads=3), found)


def test_types(made: Path) -> None:
    with open_file(made / "Q4_K.eqf") as file:
        types = {name: info.type for name, info in file.tensors.items()}
    assert types["v.patch_embd.weight"] == types["mm.model.fc.weight"] == types["v.blk.0.ffn_down.weight"] == "Q8_0"
    assert types["v.blk.1.attn_q.weight"] == "F16"  # rows of 48
    assert types["v.position_embd.weight"] == types["v.patch_embd.bias"] == types["v.post_ln.weight"] == "F32"
    assert types["blk.0.attn_q.weight"] != "Q8_0"


def test_an_image_is_known_by_its_pixels(made: Path) -> None:
    with open_file(made / "F32.eqf") as file:
        own, image = eyes(file), picture("wide")

        def number(image: np.ndarray) -> int:
            return own.look(image).number

        other = image.copy()
        other[3:9, 4:9, 1] ^= 128
        assert number(image) == number(image.copy()) != number(other)
        assert number(image.reshape(120, 50, 3)) not in (number(image), number(other))
        assert own.rows(own.look(image)) is own.rows(own.look(image.copy()))
        assert not np.array_equal(own.rows(own.look(other)), own.rows(own.look(image)))
        own.close()


def test_what_was_seen_is_cut_no_more(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn of a conversation looks at its images anew, and another thread may be encoding meanwhile."""
    with open_file(made / "F32.eqf") as file:
        own, image = eyes(file), picture("wide")
        first = own.look(image)
        rows, cut = own.rows(first), []
        monkeypatch.setattr(Tiling, "tiles", lambda *given: cut.append(given))
        with own._turns:
            again = own.look(image)
        assert not cut
        own._kept.clear()  # as where many other ones came between
        np.testing.assert_array_equal(own.rows(again), rows)
        assert (again.number, again.layout, len(again.tiles)) == (first.number, first.layout, 0)
        own.close()


def test_closed_eyes_see_nothing(made: Path) -> None:
    """Also of who waited while they were closed: what is closed must begin no threads, over a file that is gone."""
    with open_file(made / "F32.eqf") as file:
        own = eyes(file)
        looks = [own.look(picture(name)) for name in ("wide", "tall")]
        own.rows(looks[0])
        own.close()
        for look in looks:
            with pytest.raises(UsageError, match="the model is closed"):
                own.rows(look)


def test_bundles_have_the_kernels_of_images(made: Path, tmp_path: Path) -> None:
    convert(made, tmp_path / "text.eqf", "F32", vision=False)
    with open_file(made / "F32.eqf") as seeing, open_file(tmp_path / "text.eqf") as blind:
        more = {*needed(seeing, "x86-64-v3")} - {*needed(blind, "x86-64-v3")}
        assert more >= {"positions", "layer_norm"}


def test_two_pairs_of_eyes_give_no_number_twice(made: Path) -> None:
    with open_file(made / "F32.eqf") as file:
        one, other = eyes(file), eyes(file)
        assert one.look(picture("wide")).number != other.look(picture("tall")).number


def test_neighbours_are_joined() -> None:
    states = np.arange(16, dtype=np.float32)[:, None] * np.array([1, 100], np.float32)
    assert joined(states, 4, 2)[1].tolist() == [2, 200, 3, 300, 6, 600, 7, 700]
    assert joined(states, 8, 2)[1].tolist() == [2, 200, 3, 300, 10, 1000, 11, 1100]
    assert joined(states, 8, 2, mean=True)[1].tolist() == [6.5, 650]


@pytest.mark.parametrize("patch", [8, 10])
def test_patches_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: int) -> None:
    """Their matrix and positions, against NumPy: rows of 192 values, and of 300, which no vector divides."""
    monkeypatch.setitem(seeing_model.CONFIG["vision_config"], "patch_size", patch)
    monkeypatch.setitem(seeing_model.CONFIG, "scale_factor", 32 // patch)
    convert(seeing_model.write(tmp_path), tmp_path / "m.eqf", "F32")
    weights, count = seeing_model.weights(), (32 // patch) ** 2
    with open_file(tmp_path / "m.eqf") as file:
        found = images(file.metadata["config"])
        assert found is not None
        own = Eyes(file, found, 2)
        rows = own.preparation.values.patches(picture("square")[:32, :32], patch)
        part = PartFile(file, "v.")
        with Session(part, model=found.tower, rows=True, stages=range(1), context=count, threads=2) as session:
            x = session.eval(rows, all_logits=True)
        assert own.rows(own.look(picture("wide"))).shape == (7, 64)
        own.close()
    at = "model.vision_model.embeddings."
    matrix = weights[f"{at}patch_embedding.weight"].reshape(48, -1)
    expected = rows @ matrix.T + weights[f"{at}patch_embedding.bias"] + weights[f"{at}position_embedding.weight"]
    assert np.abs(x - expected).max() <= 1e-4
