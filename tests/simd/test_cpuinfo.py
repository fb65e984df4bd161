"""What Linux says of CPUs, in LLVM's words."""

from pathlib import Path

import pytest

from edgeq.simd import cpuinfo, machine

PI5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd05

Revision\t: c04170
"""


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def set_to(text: str | None) -> None:
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(cpuinfo, "Path", lambda name: path)
        cpuinfo._processors.cache_clear()

    yield set_to
    cpuinfo._processors.cache_clear()


def test_features_of_an_x86_cpu(pretend):
    pretend(
        "processor : 0\nvendor_id : GenuineIntel\ncpu family : 6\nmodel : 85\nflags : sse4_1 avx2 abm avx512_vnni\n"
    )
    features = cpuinfo.x86_features()
    assert features is not None
    assert {name for name, there in features.items() if there} == {"sse4.1", "avx2", "lzcnt", "avx512vnni"}
    assert features["avx512f"] is False
    assert cpuinfo.identity() == "GenuineIntel,6,85"


def test_a_cpu_of_two_kinds_of_cores(pretend):
    pretend(PI5)
    assert cpuinfo.identity() == ";0x41,0xd05;0x41,0xd0b"
    assert cpuinfo.x86_features() is None


def test_where_the_system_says_nothing(pretend):
    pretend(None)
    assert cpuinfo.identity() == "" and cpuinfo.x86_features() is None


def test_this_machine_as_llvm_sees_it():
    llvm = pytest.importorskip("llvmlite.binding")
    features = cpuinfo.x86_features()
    if features is None:
        pytest.skip("this is no x86 CPU, or the system does not tell its features")
    theirs = llvm.get_host_cpu_features()
    assert features == {name: theirs[name] for name in features}
    assert machine.host_features() == features
