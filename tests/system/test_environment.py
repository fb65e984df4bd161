"""Where files are kept on each system, and for users without a home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeq.errors import UsageError
from edgeq.system import environment

VARIABLES = ("EDGEQ_CACHE", "EDGEQ_KERNELS", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA")


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("system", "cache", "data"),
    [
        ("linux", ".cache/edgeq", ".local/share/edgeq/kernels"),
        ("freebsd14", ".cache/edgeq", ".local/share/edgeq/kernels"),
        ("darwin", "Library/Caches/edgeq", "Library/Application Support/edgeq/kernels"),
        ("win32", "AppData/Local/edgeq/cache", "AppData/Local/edgeq/data/kernels"),
    ],
)
def test_each_system_has_its_custom(monkeypatch, home: Path, system: str, cache: str, data: str):
    monkeypatch.setattr(sys, "platform", system)
    assert environment.cache_folder() == home / cache and environment.data_folder() == home / data
    monkeypatch.setenv("LOCALAPPDATA", str(home / "local"))
    if system == "win32":
        assert environment.cache_folder() == home / "local/edgeq/cache"
        assert environment.data_folder() == home / "local/edgeq/data/kernels"
    else:
        assert environment.cache_folder() == home / cache
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "d"))
    assert (environment.cache_folder(), environment.data_folder()) == (home / "c/edgeq", home / "d/edgeq/kernels")
    monkeypatch.setenv("EDGEQ_CACHE", str(home / "forced"))
    assert environment.cache_folder() == home / "forced"


@pytest.mark.parametrize(
    ("system", "history"),
    [
        ("linux", ".local/state/edgeq/chat-history"),
        ("darwin", "Library/Application Support/edgeq/chat-history"),
        ("win32", "AppData/Local/edgeq/state/chat-history"),
    ],
)
def test_the_history_of_chats_lies_where_each_system_keeps_state(monkeypatch, home: Path, system: str, history: str):
    monkeypatch.delenv("EDGEQ_HISTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", system)
    assert environment.history_file() == home / history
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "s"))
    assert environment.history_file() == home / "s/edgeq/chat-history"


def test_without_a_home(monkeypatch, tmp_path: Path):
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(UsageError, match=r"no home folder .*: set EDGEQ_CACHE to a folder"):
        environment.cache_folder()
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    assert environment.cache_folder() == tmp_path and not environment.data_folder().exists()


NO_HOME = """
import os, pwd, sys
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
from edgeq.__main__ import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_the_program_without_a_home(tiny_model: Path, tmp_path: Path):
    unset = {name: text for name, text in os.environ.items() if name not in (*VARIABLES, "HOME")}

    def run(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-c", NO_HOME, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=unset, timeout=60)
        return done.returncode, done.stderr

    code, said = run("convert", tiny_model, "-o", tmp_path / "m.eqf")
    assert code == 2 and said.count("\n") == 1 and "set EDGEQ_CACHE to a folder" in said
    assert run("convert", tiny_model, "-o", tmp_path / "m.eqf", "--type", "F16") == (0, "")
    assert run("show", tmp_path / "m.eqf") == (0, "")
    code, said = run("run", tmp_path / "m.eqf", "Once")
    assert code == 2 and said.count("\n") == 1 and "set EDGEQ_CACHE to a folder" in said
