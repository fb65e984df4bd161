"""Layers that see the latest positions only keep only their pages: the same bits as with all, and less memory."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import random_checkpoints

from edgeq.container.reader import File, open_file
from edgeq.engine.prompt_cache import PromptCache
from edgeq.engine.timings import Timings
from edgeq.errors import UsageError
from edgeq.graph import pages
from edgeq.graph.pages import REWIND, most_pages
from edgeq.kernels.layout import ATTENTION_BLOCK
from edgeq.models import architecture
from edgeq.quantize.pipeline import convert
from edgeq.runtime.fit import Fit
from edgeq.runtime.program import BATCH, OUTPUT_ROWS
from edgeq.runtime.session import Session

WINDOW = 24  # of all these
CASES = [
    "mistral-window",
    "qwen2-window-from-layer-1",
    "gemma2",
    "gemma3",
    "gemma3n",
    "phi3",
    "smollm3-window",
    "starcoder2",
    "gpt-oss",
    "lfm2-bias",
    "llama4",
]
LENGTH = 1100  # positions, of five pages
TEXT = np.random.RandomState(5).randint(0, 48, LENGTH).tolist()
Cases = Callable[[str], File]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    """`file(case)`: an open file of Q8_0."""
    files: dict[str, File] = {}

    def get(case: str) -> File:
        if case not in files:
            folder = random_checkpoints.write(case, tmp_path_factory.mktemp(case))
            convert(folder, folder / "m.eqf", "Q8_0", allow_no_tokenizer=True)
            files[case] = open_file(folder / "m.eqf")
        return files[case]

    yield get
    for opened in files.values():
        opened.close()


@pytest.fixture
def rewind_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sessions made after `rewind_of(tokens)` can go back by so many: with LENGTH they keep all pages."""
    return lambda tokens: monkeypatch.setattr(pages, "REWIND", tokens)


def evaluated(session: Session, step: int, first: int = 0, end: int = LENGTH) -> np.ndarray:
    """Logits of every token of TEXT[first:end], `step` at once."""
    ranges = (TEXT[at : min(at + step, end)] for at in range(first, end, step))
    return np.concatenate([session.eval(tokens, all_logits=True) for tokens in ranges])


@pytest.mark.parametrize(
    ("case", "kv"), [*((case, "f16") for case in CASES), ("gemma2", "q8_0"), ("gemma3", "f32"), ("gpt-oss", "q8_0")]
)
def test_the_bits_of_a_cache_of_all_positions(case: str, kv: str, file: Cases, rewind_of: Callable) -> None:
    """However the text is split, over several pages that are given back."""
    rewind_of(LENGTH)
    with Session(file(case), context=LENGTH, kv=kv, threads=2) as session:
        expected, whole = evaluated(session, LENGTH), session.memory()["kv"]
        assert session.sequence.nbytes == whole
    rewind_of(0)
    for batch, threads in ((200, 1), (48, 3)):
        with Session(file(case), context=LENGTH, kv=kv, threads=threads, batch=batch) as session:
            for end in range(batch, LENGTH, batch):  # whole batches, each with the logits of its last token
                np.testing.assert_array_equal(session.eval(TEXT[end - batch : end])[0], expected[end - 1])
                assert session.sequence.nbytes == session.program.pool.used <= session.memory()["kv"] < whole
    with Session(file(case), context=LENGTH, kv=kv, threads=2, batch=16) as session:
        parts = [evaluated(session, 15, 0, 1035), evaluated(session, 1, 1035)]  # a prompt, and tokens one by one
    np.testing.assert_array_equal(np.concatenate(parts), expected)


@pytest.mark.parametrize("case", ["gemma3", "lfm2-bias"])
@pytest.mark.parametrize("rewind", [0, 300])
def test_rewinding(case: str, rewind: int, file: Cases, rewind_of: Callable) -> None:
    """Back and forth at random: what a session agrees to go on from has the right bits."""
    rewind_of(LENGTH)
    with Session(file(case), context=LENGTH, threads=2) as session:
        expected = evaluated(session, 64)
    rewind_of(rewind)
    random, refused = np.random.RandomState(rewind), 0
    with Session(file(case), context=LENGTH, threads=2, batch=48) as session:
        for _ in range(60):
            back = min(session.position, int(random.randint(0, 400)))
            target = session.position - back
            to = session.rewindable(target)
            assert to in (target, 0)
            if to != target:
                refused += 1
                with pytest.raises(UsageError, match=f"cannot rewind to position {target}: .* rewind to 0"):
                    session.rewind(target)
            session.rewind(to)
            end = min(LENGTH, to + int(random.randint(1, 500)))
            if to < end:
                np.testing.assert_array_equal(evaluated(session, 33, to, end), expected[to:end])
    assert refused > 3


def test_what_is_refused_is_gone(file: Cases, rewind_of: Callable) -> None:
    rewind_of(0)
    with Session(file("gemma3"), context=LENGTH, threads=2, batch=16) as session:
        expected = evaluated(session, 16)
        nearest = min(position for position in range(1, LENGTH) if session.rewindable(position))
        first = LENGTH // 16 * 16 + 1 - WINDOW  # what the last pass saw
        assert nearest == first // ATTENTION_BLOCK * ATTENTION_BLOCK + WINDOW - 1
        with pytest.raises(UsageError, match=f"cannot rewind to position {nearest - 1}"):
            session.rewind(nearest - 1)
        assert session.sequence.fork().trim(nearest - 1) == 0
        session.rewind(nearest)
        np.testing.assert_array_equal(session.eval([TEXT[nearest]])[0], expected[nearest])


def test_a_session_goes_back_by_as_much_as_is_said(file: Cases) -> None:
    context = 3 * REWIND
    for case in CASES:
        with Session(file(case), context=context, threads=2) as session:
            session.eval((TEXT * 3)[:context])
            assert session.rewindable(context - REWIND) == context - REWIND
            assert session.rewindable(REWIND // 2) == 0


def test_a_shorter_context_is_kept_whole() -> None:
    assert most_pages(None, 4096, 512) == 16 and most_pages(None, 40, 512) == 1
    assert most_pages(24, 1040, 512) == 5
    assert most_pages(24, 4096, 512) == most_pages(24, 1 << 20, 16) == 6
    assert most_pages(512, 32768, 512) == 7 and most_pages(4096, 32768, 512) == 21
    assert most_pages(1024, 32768, 2048) == 13


@pytest.mark.parametrize(("case", "context"), [("gemma3", 5000), ("gemma3", 1000), ("mistral-window", 1300)])
def test_an_estimate_knows_of_windows(case: str, context: int, file: Cases) -> None:
    fit = Fit(file(case), architecture(file(case).metadata["config"]), "f16", BATCH, OUTPUT_ROWS, 2)
    with Session(file(case), context=context, threads=2) as session:
        assert fit.estimate(context).kv == session.memory()["kv"]


def test_a_prompt_is_computed_again_where_its_beginning_is_no_longer_held(file: Cases, rewind_of: Callable) -> None:
    rewind_of(0)
    other = [*TEXT[:300], 7, 9]
    with Session(file("gemma3"), context=LENGTH, threads=2, batch=16) as session:
        cache = PromptCache(session)
        for tokens, kept in ((TEXT[:1000], 0), (other, 0), (TEXT[:600], 300), (TEXT[:590], 589)):
            timings = Timings()
            found = cache.prompt(tokens, timings)
            assert (timings.cached_tokens, timings.computed_tokens) == (kept, len(tokens) - kept)
            with Session(file("gemma3"), context=LENGTH, threads=2) as fresh:
                np.testing.assert_array_equal(found, fresh.eval(tokens)[0])
