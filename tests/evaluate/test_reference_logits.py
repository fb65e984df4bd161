import numpy as np
import pytest
from random_models import table_model

from edgeq.errors import UsageError
from edgeq.evaluate import divergence
from edgeq.evaluate.measure import chunks_for
from edgeq.evaluate.reference_logits import ReferenceLogits
from edgeq.evaluate.texts import Passage

TEXT = "".join(chr(32 + i * i % 91) for i in range(64 * 4))


def measured(path, reference=True, **options):
    """A model against the stored predictions of a reference; without that, of the file alone."""
    first = table_model(path="reference.eqf") if reference else None
    return divergence(table_model(noise=0.4), first, TEXT, ctx_size=64, reference_logits=path, **options)


def test_what_is_stored_gives_the_same_numbers(tmp_path):
    direct = divergence(table_model(noise=0.4), table_model(), TEXT, ctx_size=64)
    for found in (measured(tmp_path / "r"), measured(tmp_path / "r"), measured(tmp_path / "r", reference=False)):
        assert found.kl.value == pytest.approx(direct.kl.value, rel=1e-3)
        assert found.kl_max == pytest.approx(direct.kl_max, rel=1e-2)
        assert found.base_perplexity.value == pytest.approx(direct.base_perplexity.value, rel=1e-6)
        assert found.same_top == direct.same_top


def test_it_is_computed_once(tmp_path):
    chunks = chunks_for([table_model()], [Passage(TEXT, "t")], 64)
    reference = table_model()
    for _ in range(2):
        with ReferenceLogits(tmp_path / "r", chunks, reference) as stored:
            assert sum(len(part.nll) for number in range(4) for part in stored.predictions(number)) == 4 * 31
    assert len(reference.session.evaluated) == 4 * 63


@pytest.mark.parametrize("left", [0.3, 0.9])
def test_it_is_gone_on_with(tmp_path, left):
    """What a killed writer left: the first chunks, and a part of another."""
    path = tmp_path / "r"
    whole = measured(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(UsageError, match=r"r: lacks chunk \d of 4: give --reference"):
        measured(path, reference=False)
    assert measured(path) == whole
    assert path.read_bytes() == content


def test_a_damaged_record_is_computed_again(tmp_path):
    path = tmp_path / "r"
    whole, content = measured(path), path.read_bytes()
    path.write_bytes(content[:-1000] + b"x" + content[-999:])
    assert measured(path) == whole and path.read_bytes() == content


def test_only_the_likeliest_tokens(tmp_path):
    full = measured(tmp_path / "full")
    errors = []
    for k in (20, 80, 269, 270):
        found = measured(tmp_path / f"{k}", reference_top_k=k)
        errors.append(1 - found.kl.value / full.kl.value)
        assert found.base_perplexity == full.base_perplexity and found.same_top == full.same_top
    assert errors[0] > errors[1] > errors[2] > -1e-3, "a tail that counts as one makes it smaller"
    assert errors[1] < 0.02 and abs(errors[3]) < 1e-3
    assert (tmp_path / "20").stat().st_size < (tmp_path / "full").stat().st_size / 3


def test_what_belongs_to_something_else_is_refused(tmp_path):
    path = tmp_path / "r"
    measured(path)
    model, other = table_model(noise=0.4), table_model(seed=1)
    with pytest.raises(UsageError, match=r"r: was made by another model, reference\.eqf: remove it"):
        divergence(model, other, TEXT, ctx_size=64, reference_logits=path)
    with pytest.raises(UsageError, match=r"r: was made of other text, chunks or tokens"):
        divergence(model, None, TEXT, ctx_size=32, reference_logits=path)
    with pytest.raises(UsageError, match=r"r: was made with a top-k of all"):
        measured(path, reference_top_k=5)
    with pytest.raises(UsageError, match=r"none: does not exist: give --reference to make it"):
        measured(tmp_path / "none", reference=False)
    path.write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"r: is no file of reference predictions"):
        measured(path)
    assert path.read_bytes() == b"something else", "nothing is lost"
    assert np.isfinite(measured(tmp_path / "new").kl.value)
