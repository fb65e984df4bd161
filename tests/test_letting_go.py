"""Models that are dropped, closed twice, closed in the middle, or open when Python ends."""

import gc
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeq
from edgeq.checkpoints import open_checkpoint
from edgeq.container.gguf_reader import open_gguf
from edgeq.container.reader import open_file
from edgeq.errors import EdgeqError, UsageError
from edgeq.gguf.exporter import export_gguf
from edgeq.runtime.session import Session

TIMES = 40


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    target = tmp_path_factory.mktemp("dropped") / "dropped.eqf"
    edgeq.convert(tiny_model, target, "Q8_0")
    edgeq.load(target, threads=2).close()  # its kernels stay loaded
    return target


def held(name: str) -> dict[str, int]:
    """What this process has open: descriptors, threads, and maps of files called `name`."""
    if not os.path.isdir("/proc/self/fd"):
        return {"threads": threading.active_count()}
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "threads of the system": len(os.listdir("/proc/self/task")),
        "maps": sum(name in line for line in Path("/proc/self/maps").read_text().splitlines()),
    }


def flat(use: Callable[[], object], name: str) -> None:
    """Do it many times: no more is held afterwards. A thread that reads ahead may take a moment to end."""
    use()
    gc.collect()
    time.sleep(0.05)
    before = held(name)
    for _ in range(TIMES):
        use()
    gc.collect()
    deadline = time.monotonic() + 10
    while held(name) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert held(name) == before


def test_models_that_are_dropped(path: Path):
    def use() -> None:
        model = edgeq.load(path, context=32, threads=3)
        assert len(list(model.generate("Once", 2, temperature=0.0)))
        next(iter(model.generate("Once", 3)))  # and one that is not read to its end

    flat(use, path.name)


def test_files_and_checkpoints_that_are_dropped(path: Path, tiny_model: Path, tmp_path: Path):
    gguf = tmp_path / "dropped.gguf"
    export_gguf(path, gguf)

    def use() -> None:
        file, checkpoint, imported = open_file(path), open_checkpoint(tiny_model), open_gguf(gguf)
        for name in list(file.tensors)[:3]:
            assert file.data(name).nbytes
        assert checkpoint.read("model.norm.weight").size
        assert imported.data(next(iter(imported.tensors))).size

    flat(use, "dropped.")


def test_loads_that_fail(path: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At every stage: the header, the session's arguments, the tokenizer, the checkpoint, threads that do not start."""
    content = path.read_bytes()
    (cut := tmp_path / "dropped-cut.eqf").write_bytes(content[:-1])
    shutil.copytree(tiny_model, broken := tmp_path / "broken")
    (broken / "config.json").write_text("{")
    (half := tmp_path / "dropped.gguf").write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 0))
    start, started = threading.Thread.start, 0

    def start_first(thread: threading.Thread) -> None:
        nonlocal started
        started += thread.name.startswith("edgeq-")
        if thread.name == "edgeq-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_first)
    reached = set()

    def use() -> None:
        for attempt in (
            lambda: edgeq.load(cut),
            lambda: edgeq.load(path, kv="f8"),
            lambda: edgeq.load(path, context=-1),
            lambda: edgeq.load(path, threads=4),
            lambda: open_checkpoint(broken),
            lambda: open_gguf(half),
            lambda: Session(open_file(path), batch=0),
        ):
            with pytest.raises(EdgeqError) as caught:
                attempt()
            reached.add(str(caught.value))

    flat(use, "dropped")
    assert len(reached) == 7 and started == 2 * (TIMES + 1)
    assert any("4 threads cannot be started here: give at most 2" in message for message in reached)


def test_a_closed_model_frees_its_memory(path: Path):
    """Also where the variable stays, as in a notebook."""
    before = held(path.name)
    model = edgeq.load(path, context=32, threads=2)
    assert list(model.generate("Once", 2))
    model.close()
    model.close()
    assert before.get("maps") == held(path.name).get("maps")
    assert not model.session.program.pool.used and not model.session.plan.keep
    with pytest.raises(UsageError, match="the model is closed"):
        list(model.generate("Once", 2))


def test_a_view_outlives_its_file(path: Path):
    file = open_file(path)
    view = file.data("output_norm.weight")
    expected = view.copy()
    file.close()
    del file
    gc.collect()
    assert (view == expected).all()


def test_closed_in_the_middle_of_an_answer(path: Path):
    model = edgeq.load(path, context=64, threads=2)
    pieces = iter(model.generate("Once", 40))
    assert next(pieces)
    model.close()
    with pytest.raises(UsageError, match="the model is closed"):
        list(pieces)


def test_closed_by_another_thread(path: Path):
    """While a pass runs: that ends first, then the answer does."""
    model = edgeq.load(path, context=256, threads=2)
    begun, said = threading.Event(), []

    def answer() -> None:
        try:
            for piece in model.generate("Once upon a time", 200, temperature=1.0):
                said.append(piece)
                begun.set()
        except UsageError as error:
            said.append(str(error))

    thread = threading.Thread(target=answer)
    thread.start()
    assert begun.wait(10)
    model.close()
    thread.join(10)
    assert not thread.is_alive() and ("is closed" in said[-1] or len(said) > 20)


ENDINGS = {
    "after an answer": "list(m.generate('Once', 3))",
    "within an answer": "pieces = iter(m.generate('Once', 9)); next(pieces)",
    "by a thread": """
def run():
    while True:
        list(m.generate('Once', 100))
threading.Thread(target=run, daemon=True).start(); time.sleep(0.2)
""",
    "an error": "list(m.generate('Once', 3)); sys.exit(3)",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_python_ends_with_an_open_model(path: Path, how: str):
    code = f"import sys, threading, time, edgeq\nm = edgeq.load(sys.argv[1], context=128, threads=3)\n{ENDINGS[how]}"
    command = [sys.executable, "-W", "error", "-c", code, path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (3 if how == "an error" else 0, "", "")
