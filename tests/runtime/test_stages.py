"""Sessions of some stages of a model, and of files with other tensors in memory."""

from collections.abc import Callable

import numpy as np
import pytest

from edgeq.container.changed import ChangedFile
from edgeq.container.reader import File
from edgeq.errors import UsageError
from edgeq.graph.aligned import aligned
from edgeq.runtime.session import Session

PROMPT = [1, 45, 9, 30, 7, 7, 101, 64, 12, 5, 88]


def run(file: File, stages: range, x: object, **options: object) -> np.ndarray:
    with Session(file, context=64, threads=2, stages=stages, **options) as session:  # type: ignore[arg-type]
        return session.eval(x, all_logits=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["Q4_K_M", "F32"])
def test_stages_one_after_the_other_are_the_model(tiny: Callable[[str], File], kind: str) -> None:
    file = tiny(kind)
    with Session(file, context=64, threads=2) as session:
        expected, layers = session.eval(PROMPT, all_logits=True), session.model.num_hidden_layers
    x: object = PROMPT
    for stage in range(layers + 2):
        x = run(file, range(stage, stage + 1), x)
    assert np.array_equal(x, expected)  # type: ignore[arg-type]
    x = run(file, range(2, layers + 2), run(file, range(2), PROMPT))
    assert np.array_equal(x, expected)


def test_a_session_that_ends_at_its_taps_shows_what_the_whole_shows(tiny: Callable[[str], File]) -> None:
    file, seen = tiny("Q4_K_M"), {}
    for only in (False, True):
        seen[only] = dict[str, np.ndarray]()
        taps = ["blk.0.attn_output.weight", "blk.0.attn_output.weight+"]

        def tapped(name: str, x: np.ndarray, only: bool = only) -> None:
            seen[only][name] = x.copy()

        with Session(file, context=64, stages=range(2), taps=taps, only_taps=only) as session:
            session.eval(PROMPT, all_logits=True, tapped=tapped)
            steps = session.plan.steps
            seen[only]["steps"] = np.array([steps])
    assert seen[True].pop("steps") < seen[False].pop("steps")
    assert seen[True].keys() == seen[False].keys() and len(seen[True]) == 2
    assert all(np.array_equal(seen[True][name], seen[False][name]) for name in seen[True])


def test_what_a_matrix_adds_to_is_the_residual_stream(tiny: Callable[[str], File]) -> None:
    file, shown = tiny("F32"), list[np.ndarray]()
    name = "blk.1.attn_output.weight+"
    with Session(file, context=64, stages=range(3), taps=[name]) as session:
        session.eval(PROMPT, all_logits=True, tapped=lambda _, x: shown.append(x.copy()))
    assert np.array_equal(shown[0], run(file, range(2), PROMPT))
    with pytest.raises(UsageError, match=r"attn_q\.weight\+ is no matrix"):
        Session(file, context=64, taps=["blk.1.attn_q.weight+"])


def test_a_changed_file_is_the_model_with_other_tensors(tiny: Callable[[str], File]) -> None:
    file, other = tiny("F32"), tiny("Q4_K_M")
    own = {}
    for name, info in other.tensors.items():
        data = aligned(info.nbytes)
        data[:] = other.data(name)
        own[name] = info.type, data
    every = range(4)
    before, after = run(file, every, PROMPT, kv="f16"), run(other, every, PROMPT, kv="f16")
    changed = ChangedFile(file, own)
    assert np.array_equal(run(changed, every, PROMPT, kv="f16"), after) and not np.array_equal(before, after)
    changed.close()
    assert np.array_equal(run(file, every, PROMPT, kv="f16"), before), "the file is as it was, and open"


@pytest.mark.parametrize("stages", [range(0), range(3, 9), range(-1, 2), range(0, 3, 2)])
def test_stages_that_a_model_has_not_are_refused(tiny: Callable[[str], File], stages: range) -> None:
    with pytest.raises(UsageError, match="stages must be within 0 to"):
        Session(tiny("F32"), context=64, stages=stages)
