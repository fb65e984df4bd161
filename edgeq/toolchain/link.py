"""Join relocatable ELF objects into one position-independent image without symbols, relocations or writable data.

LLVM emits a kernel as an object of a few sections: code, and constants that the code reads relative to itself. Laid
next to each other, all distances between them are known, and nothing is left to be done when the image is loaded. The
one C function that kernels call, Linux's `syscall`, goes along.

Sources: System V ABI, ELF-64 object file format; its supplement for x86-64 (chapter 4.4); ELF for the Arm 64-bit
architecture (chapter 5.7).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edgeq.errors import KernelError

_MACHINES = {62: "x86_64", 183: "aarch64"}
_ALLOCATED, _WRITABLE = 2, 1
_RELA, _NOBITS = 4, 8

# Functions that kernels call, as machine code; no library has to be found for them. `syscall(number, four arguments)`:
# mov rax, rdi; mov rdi, rsi; mov rsi, rdx; mov rdx, rcx; mov r10, r8; syscall; ret
# mov x8, x0; mov x0, x1; mov x1, x2; mov x2, x3; mov x3, x4; svc 0; ret
_FUNCTIONS = {
    ("x86_64", "syscall"): bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 0f05 c3"),
    ("aarch64", "syscall"): bytes.fromhex("e80300aa e00301aa e10302aa e20303aa e30304aa 010000d4 c0035fd6"),
}


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


class _Object:
    """The parts of an ELF object that linking needs."""

    def __init__(self, name: str, data: bytes):
        self.name, self.data = name, data
        if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 16) != (1,):
            raise KernelError(f"the object of kernel {name} is no 64-bit little-endian ELF object")
        machine = struct.unpack_from("<H", data, 18)[0]
        if machine not in _MACHINES:
            raise KernelError(f"the object of kernel {name} is for the unknown ELF machine {machine}")
        self.architecture = _MACHINES[machine]
        (start,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        rows = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
        self.sections = [
            _Section(self._text(rows[names][4] + n), kind, flags, offset, nbytes, link, info, max(align, 1))
            for n, kind, flags, _, offset, nbytes, link, info, align, _ in rows
        ]

    def _text(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode()

    def symbol(self, table: _Section, index: int) -> tuple[str, int, int]:
        """(name, section index or 0 if undefined, value)."""
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self.data, table.offset + 24 * index)
        return self._text(self.sections[table.link].offset + name), section, value

    def exported(self, wanted: str) -> tuple[int, int]:
        """(section index, offset in it) of a defined symbol."""
        for table in self.sections:
            if table.kind == 2:
                for i in range(table.size // 24):
                    name, section, value = self.symbol(table, i)
                    if name == wanted and section:
                        return section, value
        raise KernelError(f"the object of kernel {self.name} does not define {wanted}")

    def loaded(self) -> dict[int, _Section]:
        """Sections that belong in the image. Unwind tables do not: nothing is thrown through a kernel."""
        found = {}
        for i, section in enumerate(self.sections):
            if section.flags & _ALLOCATED and section.size and section.name != ".eh_frame":
                if section.flags & _WRITABLE or section.kind == _NOBITS:
                    raise KernelError(f"the object of kernel {self.name} has writable data, section {section.name}")
                found[i] = section
        return found


def link(objects: Mapping[str, tuple[bytes, str]]) -> tuple[str, bytes, dict[str, int]]:
    """Objects (kernel name -> object, its symbol) as (architecture, image, kernel name -> offset of its entry).

    The image works at any address that is a multiple of 4096. Raises KernelError for an object that cannot be made
    free of relocations.
    """
    image = bytearray()
    entries: dict[str, int] = {}
    functions: dict[str, int] = {}
    architectures = set()
    for name, (data, symbol) in objects.items():
        part = _Object(name, data)
        architectures.add(part.architecture)
        places: dict[int, int] = {}
        for i, section in part.loaded().items():
            image += bytes(-len(image) % max(section.align, 16))
            places[i] = len(image)
            image += data[section.offset : section.offset + section.size]
        for section in part.sections:
            if section.kind == _RELA and section.info in places:
                _relocate(image, part, section, places, functions)
        section_index, value = part.exported(symbol)
        entries[name] = places[section_index] + value
    if len(architectures) != 1:
        raise KernelError(f"objects of {len(architectures)} architectures cannot be linked")
    return architectures.pop(), bytes(image), entries


def _relocate(
    image: bytearray, part: _Object, table: _Section, places: Mapping[int, int], functions: dict[str, int]
) -> None:
    """Fill in the distances that one section's relocations ask for."""
    apply = {"x86_64": _apply_x86_64, "aarch64": _apply_aarch64}[part.architecture]
    for i in range(table.size // 24):
        offset, info, addend = struct.unpack_from("<QQq", part.data, table.offset + 24 * i)
        symbol, section, value = part.symbol(part.sections[table.link], info >> 32)
        if section in places:
            target = places[section] + value
        elif section == 0 and (code := _FUNCTIONS.get((part.architecture, symbol))):
            if symbol not in functions:
                image += bytes(-len(image) % 16)
                functions[symbol] = len(image)
                image += code
            target = functions[symbol]
        else:
            raise KernelError(f"kernel {part.name} needs {symbol or 'a section'!r}, which an image does not have")
        if not apply(image, info & 0xFFFFFFFF, places[table.info] + offset, target + addend):
            raise KernelError(f"kernel {part.name} has a relocation of type {info & 0xFFFFFFFF} that does not fit")


def _apply_x86_64(image: bytearray, kind: int, place: int, target: int) -> bool:
    """R_X86_64_PC32 and PLT32: a signed 32-bit distance."""
    distance = target - place
    if kind not in (2, 4) or not -(1 << 31) <= distance < 1 << 31:
        return False
    struct.pack_into("<i", image, place, distance)
    return True


def _apply_aarch64(image: bytearray, kind: int, place: int, target: int) -> bool:
    """The address of a page relative to this one, the offset in it, and calls."""
    (word,) = struct.unpack_from("<I", image, place)
    if kind == 275:  # R_AARCH64_ADR_PREL_PG_HI21: adrp, pages of 4096
        pages = (target >> 12) - (place >> 12)
        if not -(1 << 20) <= pages < 1 << 20:
            return False
        word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind == 274:  # R_AARCH64_ADR_PREL_LO21: adr
        distance = target - place
        if not -(1 << 20) <= distance < 1 << 20:
            return False
        word |= (distance & 3) << 29 | (distance >> 2 & 0x7FFFF) << 5
    elif kind in _LOW_12:  # the low 12 bits, in units of what is loaded
        shift = _LOW_12[kind]
        if target & ((1 << shift) - 1):
            return False
        word |= ((target & 0xFFF) >> shift) << 10
    elif kind in (282, 283):  # R_AARCH64_JUMP26, CALL26
        distance = target - place
        if distance & 3 or not -(1 << 27) <= distance < 1 << 27:
            return False
        word |= distance >> 2 & 0x3FFFFFF
    elif kind == 261:  # R_AARCH64_PREL32, as in tables of jumps
        distance = target - place
        if not -(1 << 31) <= distance < 1 << 31:
            return False
        word = distance & 0xFFFFFFFF
    else:
        return False
    struct.pack_into("<I", image, place, word)
    return True


# R_AARCH64_ADD_ABS_LO12_NC and LDST8/16/32/64/128_ABS_LO12_NC -> log2 of the access's bytes
_LOW_12 = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
