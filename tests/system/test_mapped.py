"""Files that become shorter while they are mapped: one clear error in place of a process that is gone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeq.container.reader import open_file
from edgeq.errors import FormatError
from edgeq.quantize.pipeline import convert
from edgeq.runtime.session import Session
from edgeq.system.mapped import FileMap
from edgeq.system.output import OutputFile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="on Windows no mapped file can be cut")
SHORTER = "m.eqf: became shorter while it was in use, or the disk fails: copy or convert the file again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.eqf"
    convert(tiny_model, path, "Q8_0")
    return path


@pytest.fixture
def path(tmp_path, whole) -> Path:
    return Path(shutil.copy(whole, tmp_path / "m.eqf"))


def mapped(path: Path, nbytes: int) -> FileMap:
    path.write_bytes(b"x" * nbytes)
    with open(path, "rb") as file:
        return FileMap(file.fileno(), path)


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_that_are_gone_end_a_pass(path, threads):
    with open_file(path) as other:
        whole = open_file(path)
        session, good = (Session(file, context=32, threads=threads) for file in (whole, other))
        expected = good.eval([5, 900, 17])
        assert np.array_equal(session.eval([5, 900, 17]), expected)
        os.truncate(path, path.stat().st_size // 2)
        for _ in range(2):
            with pytest.raises(FormatError, match=SHORTER):
                session.eval([301])
        assert session.position == 3, "nothing was appended"
        other.close()
    whole.close()


def test_a_last_page_without_its_end_is_noticed(path):
    """There zeros are read, without any signal."""
    file = open_file(path)
    session = Session(file, context=32, threads=1)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FormatError, match=SHORTER):
        session.eval([5])
    file.close()


def test_nothing_is_written_of_a_file_that_is_cut(path, tmp_path):
    def copy() -> None:
        with open_file(path) as file, OutputFile(tmp_path / "copy", file.nbytes) as output:
            os.truncate(path, 5000)
            for name, info in file.tensors.items():
                output.put(file.data(name), info.offset)

    with pytest.raises(FormatError, match=SHORTER):
        copy()
    assert os.listdir(tmp_path) == ["m.eqf"]


def test_a_file_that_grows_or_goes_is_fine(tmp_path):
    found = mapped(tmp_path / "m.eqf", 5000)
    (tmp_path / "m.eqf").open("ab").write(b"more")
    (tmp_path / "m.eqf").unlink()
    found.check()
    assert found[4999] == ord("x")


def test_each_map_answers_for_itself(tmp_path):
    one, two = mapped(tmp_path / "m.eqf", 50_000), mapped(tmp_path / "n.eqf", 50_000)
    os.truncate(tmp_path / "m.eqf", 10)
    assert one[45_000] == 0 and two[45_000] == ord("x")
    two.check()
    with pytest.raises(FormatError, match=SHORTER):
        one.check()


FAULT = """
import ctypes, faulthandler, mmap, os, signal, sys
from edgeq.system.mapped import FileMap
faulthandler.enable()
path, how = sys.argv[1:]
open(path, "wb").write(bytes(50_000))
with open(path, "rb") as file:
    ours = FileMap(file.fileno(), path)
    foreign = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
os.truncate(path, 10)
print(ours[30_000], ours.lost, flush=True)
if how == "read":
    foreign[40_000]
elif how == "sent":
    os.kill(os.getpid(), signal.SIGBUS)
"""


@pytest.mark.parametrize("how", ["read", "sent", "neither"])
def test_other_faults_are_whose_they_were(tmp_path, how):
    command = [sys.executable, "-c", FAULT, str(tmp_path / "m.eqf"), how]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout == "0 True\n"
    assert ended.returncode == (0 if how == "neither" else -signal.SIGBUS)
    assert ("Fatal Python error: Bus error" in ended.stderr) == (how != "neither")
