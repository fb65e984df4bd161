"""Fixtures every layer's tests share."""

import signal
from pathlib import Path

import pytest

from edgeq.system import environment

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: what it starts would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real checkpoints, tokenizers and texts; a test that needs it skips where it is absent."""
    folder = environment.test_data() or REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set EDGEQ_TEST_DATA to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The bundled story model, a Hugging Face checkpoint."""
    return REPOSITORY / "tools" / "tiny_model"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, without models; kernels that are compiled already are not compiled again."""
    kernels = environment.cache_folder() / "kernels"
    (tmp_path / "cache").mkdir()
    if kernels.is_dir():
        (tmp_path / "cache" / "kernels").symlink_to(kernels)
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
