"""Weights are read where the system mapped the file: clean pages that processes share."""

import importlib.util
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edgeq.container.reader import File, open_file
from edgeq.runtime.session import Session

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def memory() -> Iterator[ModuleType]:
    sys.path.insert(0, str(REPOSITORY / "bench"))  # where it finds what it shares with others
    spec = importlib.util.spec_from_file_location("memory", REPOSITORY / "bench" / "memory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(REPOSITORY / "bench"))


def test_two_processes_share_the_file(memory: ModuleType, tiny: Callable[[str], File]) -> None:
    file = tiny("Q8_0")
    matrices = sum(info.nbytes for info in file.tensors.values() if len(info.shape) == 2)
    alone = memory.measure(file.path, 1, 256, 4)[0]
    both = memory.measure(file.path, 2, 256, 4)
    for report in (alone, *both):
        mapping = report["mapping"]
        assert matrices <= mapping["Rss"] <= file.nbytes + mmap.PAGESIZE, "every matrix is read, through the mapping"
        assert mapping["Private_Dirty"] == mapping["Shared_Dirty"] == 0
        limit = report["session"]["weights"] + report["session"]["kv"] + memory.ALLOWANCE
        assert report["status"]["VmHWM"] <= limit
    for report in both:
        assert report["mapping"]["Pss"] <= 0.6 * report["mapping"]["Rss"]
        assert report["mapping"]["Private_Clean"] <= 0.1 * report["mapping"]["Rss"]


def test_loading_reads_no_weights(memory: ModuleType, tiny: Callable[[str], File], tmp_path: Path) -> None:
    """Only vectors are looked at before the first token."""
    path = tmp_path / "copy.eqf"
    path.write_bytes(Path(tiny("F32").path).read_bytes())
    with open_file(path) as file, Session(file, context=64, threads=1) as session:
        loaded = memory.mapping(str(path))["Rss"]
        session.eval([1])
        used = memory.mapping(str(path))["Rss"]
    assert loaded < 0.2 * used
