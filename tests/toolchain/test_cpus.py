"""The CPUs that kernels are built for, and which of them this one is."""

import pytest

from edgeq.errors import UnsupportedError
from edgeq.toolchain import cpus


def test_cpus():
    assert [(cpu.name, cpu.isa.name) for cpu in cpus.CPUS] == [
        ("x86-64-v3", "avx2"),
        ("x86-64-v3-vnni", "avxvnni"),
        ("x86-64-v4", "avx512"),
        ("x86-64-v4-vnni", "avx512vnni"),
        ("cortex-a72", "neon"),
        ("cortex-a76", "neon_dotprod"),
        ("neoverse-n2", "neon_i8mm"),
    ]
    assert cpus.cpu("cortex-a76").triple == "aarch64-unknown-linux-gnu"
    with pytest.raises(UnsupportedError, match="kernels cannot be built for 'i486': choose among x86-64-v3, "):
        cpus.cpu("i486")


def test_this_cpu(monkeypatch: pytest.MonkeyPatch):
    def pretend(machine: str, features: set[str]) -> None:
        monkeypatch.setattr(cpus.platform, "machine", lambda: machine)
        monkeypatch.setattr(cpus.isa_table, "host_features", lambda: dict.fromkeys(features, True))

    pretend("x86_64", cpus._V4 | {"avx512vnni", "gfni"})
    assert cpus.this_cpu().name == "x86-64-v4-vnni"
    pretend("x86_64", set(cpus._V4) - {"avx512cd"})
    assert cpus.this_cpu().name == "x86-64-v3"
    pretend("aarch64", {"neon", "dotprod", "lse", "fullfp16"})
    assert cpus.this_cpu().name == "cortex-a76"
    pretend("x86_64", {"sse2"})
    with pytest.raises(UnsupportedError, match="name one with --cpu"):
        cpus.this_cpu()
