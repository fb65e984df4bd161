"""`edgeq kernels`: build libraries, list them."""

import json
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.ops import catalog
from edgeq.toolchain import cpus, prebuilt


@pytest.fixture(autouse=True)
def few_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two kernels stand for all of them."""
    monkeypatch.setattr(catalog, "names", lambda isa: ["copy_rows", "execute:publish"])
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "cache"))
    prebuilt.found.cache_clear()


def test_build_then_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["kernels", "list"]) == 0
    assert f"no library in {tmp_path / 'kernels'}" in capsys.readouterr().out
    assert main(["kernels", "build", "--cpu", "x86-64-v3,cortex-a76"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "edgeq: compiling 2 kernels for x86-64-v3 (avx2)",
        "edgeq: 1 of 2 compiled",
        "edgeq: compiling 2 kernels for cortex-a76 (neon_dotprod)",
        "edgeq: 1 of 2 compiled",
    ]
    paths = [tmp_path / "kernels" / f"{name}.eqk" for name in ("x86-64-v3", "cortex-a76")]
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [str(path) for path in paths]
    prebuilt.found.cache_clear()
    assert main(["kernels", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in paths:
        assert any(line.startswith(f"{path}: ") and "2 kernels" in line for line in lines)
    assert lines[-1].startswith("compiled here: 0 kernels in ")
    assert main(["kernels", "list", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [
        (one["path"], one["kernels"], one["bytes"]) for one in sorted(facts["libraries"], key=lambda one: one["path"])
    ] == [(str(path), 2, path.stat().st_size) for path in sorted(paths)]
    assert facts["folders"] == [str(tmp_path / "kernels")] and facts["compiled"]["kernels"] == 0


def test_list_names_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = tmp_path / "kernels" / "bad.eqk"
    bad.parent.mkdir()
    bad.write_bytes(b"nothing")
    assert main(["kernels", "list"]) == 0
    assert f"{bad}: is no library of kernels, or is cut short: build it again" in capsys.readouterr().out
    assert main(["kernels", "list", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["libraries"]
    assert one["problem"].startswith(f"{bad}: is no library") and one["cpu"] is one["state"] is None


def test_the_list_of_cpus(capsys: pytest.CaptureFixture[str]):
    assert main(["kernels", "build", "--cpu", "help"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        [cpu.name, cpu.isa.name] for cpu in cpus.CPUS
    ]


def test_what_cannot_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["kernels", "build", "--cpu", "pentium"]) == 2
    assert "kernels cannot be built for 'pentium': choose among x86-64-v3" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["kernels", "build", "--cpu", "x86-64-v3", "-o", str(tmp_path / "file")]) == 2
    assert "x86-64-v3.eqk: cannot be written: " in capsys.readouterr().err


def test_alone_it_shows_what_it_can_do(capsys: pytest.CaptureFixture[str]):
    assert main(["kernels"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "build  Compile every kernel for some CPUs." in said.out


def test_no_cpu_is_not_this_one(capsys: pytest.CaptureFixture[str]):
    assert main(["kernels", "build", "--cpu", ""]) == 2
    assert capsys.readouterr().err == "edgeq: --cpu names no CPU: --cpu help lists them\n"
