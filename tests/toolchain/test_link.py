"""Objects joined into an image: every relocation by its definition, and nothing that an image cannot have."""

import struct

import pytest

from edgeq.errors import KernelError
from edgeq.simd.isa import TABLE
from edgeq.toolchain import link
from edgeq.toolchain.worker import Job, compile_job

A72 = {"isa": "neon", "cpu": "cortex-a72", "triple": "aarch64-unknown-linux-gnu"}
PORTABLE = {"isa": "portable", "cpu": "x86-64-v3", "triple": "x86_64-unknown-linux-gnu"}


@pytest.mark.parametrize(
    ("kind", "instruction", "place", "target", "expected"),
    [
        (275, 0x90000000, 0x1004, 0x5678, 0x90000000 | (4 & 3) << 29 | (4 >> 2) << 5),  # adrp x0, 4 pages on
        (275, 0x90000000, 0x1004, 0x0678, 0x90000000 | 3 << 29 | 0x7FFFF << 5),  # one page back
        (277, 0x91000000, 0x1004, 0x5678, 0x91000000 | 0x678 << 10),  # add x0, x0, 0x678
        (286, 0xF9400000, 0x1004, 0x5678, 0xF9400000 | (0x678 >> 3) << 10),  # ldr x0, [x0, 0x678]
        (299, 0x3DC00000, 0x1004, 0x5670, 0x3DC00000 | (0x670 >> 4) << 10),  # ldr q0, [x0, 0x670]
        (285, 0xBD400000, 0x1004, 0x5674, 0xBD400000 | (0x674 >> 2) << 10),  # ldr s0, [x0, 0x674]
        (283, 0x94000000, 0x1004, 0x1104, 0x94000000 | 0x100 >> 2),  # bl, 0x100 on
        (282, 0x14000000, 0x1004, 0x0F04, 0x14000000 | (0x4000000 - 0x40)),  # b, 0x100 back
        (274, 0x10000000, 0x1004, 0x1107, 0x10000000 | 3 << 29 | (0x103 >> 2) << 5),  # adr, 0x103 on
        (261, 0, 0x1004, 0x1000, 0xFFFFFFFC),
    ],
)
def test_aarch64_relocations(kind: int, instruction: int, place: int, target: int, expected: int):
    image = bytearray(0x2000)
    struct.pack_into("<I", image, place, instruction)
    assert link._apply_aarch64(image, kind, place, target)
    assert struct.unpack_from("<I", image, place) == (expected,)


@pytest.mark.parametrize(("kind", "target"), [(299, 0x1008), (283, 0x1002), (283, 1 << 28), (261, 1 << 33), (257, 0)])
def test_aarch64_relocations_that_do_not_fit(kind: int, target: int):
    assert not link._apply_aarch64(bytearray(0x2000), kind, 0x1004, target)


def test_x86_64_relocations():
    image = bytearray(64)
    assert link._apply_x86_64(image, 4, 8, 40) and struct.unpack_from("<i", image, 8) == (32,)
    assert link._apply_x86_64(image, 2, 40, 8) and struct.unpack_from("<i", image, 40) == (-32,)
    assert not link._apply_x86_64(image, 2, 0, 1 << 31)
    assert not link._apply_x86_64(image, 1, 8, 40)  # an address, which nobody knows before it is loaded


@pytest.mark.parametrize("target", [A72, PORTABLE], ids=["aarch64", "x86_64"])
def test_real_objects(target: dict[str, str]):
    """Entry points lie in the image, aligned, and `syscall` is in it once."""
    names = ["execute:serve", "execute:lead", "norm"]
    objects = {name: (compile_job(Job(name, symbol=f"k_{name[-4:]}", **target)), f"k_{name[-4:]}") for name in names}
    architecture, image, entries = link.link(objects)
    assert target["triple"].startswith(architecture)
    assert list(entries) == names and len(set(entries.values())) == 3
    assert all(entry % 4 == 0 and entry < len(image) for entry in entries.values())
    assert image.count(link._FUNCTIONS[architecture, "syscall"]) == 1


def test_what_cannot_be_linked():
    isa = next(row for row in TABLE if row.name == "portable")
    code = compile_job(Job("copy_rows", isa.name, "k"))
    with pytest.raises(KernelError, match="copy_rows does not define other"):
        link.link({"copy_rows": (code, "other")})
    with pytest.raises(KernelError, match="copy_rows is no 64-bit little-endian ELF object"):
        link.link({"copy_rows": (b"MZ" + code[2:], "k")})
    with pytest.raises(KernelError, match="unknown ELF machine 40"):
        link.link({"copy_rows": (code[:18] + b"\x28\0" + code[20:], "k")})
    arm = compile_job(Job("copy_rows", symbol="k", **A72))
    if link.link({"one": (code, "k")})[0] != "aarch64":
        with pytest.raises(KernelError, match="objects of 2 architectures"):
            link.link({"one": (code, "k"), "other": (arm, "k")})
    needy = compile_job(Job("execute:lead", isa.name, "k")).replace(b"syscall", b"sisgall")
    with pytest.raises(KernelError, match="needs 'sisgall', which an image does not have"):
        link.link({"execute:lead": (needy, "k")})
