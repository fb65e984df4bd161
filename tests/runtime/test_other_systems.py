"""What systems other than Linux tell of their cores."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from fake_machine import cpus

from edgeq.runtime import hardware


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A Mac's answers, by name."""
    told: dict[str, str] = {}
    monkeypatch.setattr(sys, "platform", "darwin")
    run = lambda command, **options: SimpleNamespace(stdout=told.get(command[-1], "") + "\n")  # noqa: E731
    monkeypatch.setattr(subprocess, "run", run)
    return told


def test_a_mac_uses_its_fast_cores(mac: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mac.update({"hw.perflevel0.physicalcpu": "4", "machdep.cpu.brand_string": "Apple M1"})
    cores = hardware.cores(tmp_path, set(range(8)))
    assert cores.threads == 4 and cores.restriction(4) is None and cores.quota is None
    assert "4 of 8 CPUs are physical cores, or the fast ones" in cores.reasons[-1]
    assert hardware.cpu_name(tmp_path) == "Apple M1"
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 2)
    mac.clear()  # one with an Intel CPU
    assert hardware.cores(tmp_path, set(range(4))).threads == 2


@pytest.mark.parametrize(("known", "threads"), [(4, 4), (None, 8), (8, 8)])
def test_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int | None, threads: int) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: known)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert hardware.cores(tmp_path, set(range(8))).threads == threads
    assert hardware.cpu_name(tmp_path)


def test_linux_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 1)
    assert hardware.cores(cpus(tmp_path, [1024] * 4), set(range(4))).threads == 4
