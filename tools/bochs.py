"""Run kernels on a CPU that this machine has not: every call of one goes to Bochs' CPU; the rest runs as it does.

Bochs comes as the Python package bochscpu: its interpreter of x86 instructions alone, without devices or an operating
system. It sees this process's memory at this process's addresses, so a kernel finds its arguments where edgeq puts
them. The threads of a team take turns on it: a kernel that waits for another thread asks the system to let that one
run, and then it does.
"""

import ctypes
import mmap
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from edgeq.simd import cpuinfo
from edgeq.toolchain import library

# CPU -> its number among those that Bochs knows
MODELS = {"skylake-x": 26, "icelake": 28, "arrowlake": 31}
_PAGE, _GIB = 4096, 1 << 30
_TABLES_BYTES, _STACK_BYTES, _DETOURS_BYTES = 1 << 20, 1 << 20, 1 << 16
_FIRST, _AROUND = 4, 8  # GiB; below 4 lie a PC's devices
_UNDEFINED = 6  # exception
_FUTEX = 202  # Linux's number of futex, by which a thread sleeps, or wakes others

# Leaf and subleaf of CPUID, register (eax, ebx, ecx, edx), and its bits by Linux's names (Intel's manual, volume 2)
_FLAGS = (
    ((1, 0), 2, {"pni": 0, "ssse3": 9, "fma": 12, "cx16": 13, "sse4_1": 19, "sse4_2": 20, "movbe": 22, "popcnt": 23}),
    ((1, 0), 2, {"avx": 28, "f16c": 29}),
    ((1, 0), 3, {"sse": 25, "sse2": 26}),
    ((7, 0), 1, {"bmi1": 3, "avx2": 5, "bmi2": 8}),
    ((7, 0), 1, {"avx512f": 16, "avx512dq": 17, "avx512cd": 28, "avx512bw": 30, "avx512vl": 31}),
    ((7, 0), 2, {"avx512vbmi": 1, "avx512_vbmi2": 6, "gfni": 8, "avx512_vnni": 11}),
    ((7, 1), 0, {"avx_vnni": 4, "avx512_bf16": 5}),
    ((0x80000001, 0), 2, {"lahf_lm": 0, "abm": 5}),
)
# mov eax, edi; mov ecx, esi; mov r8, rdx; push rbx; cpuid; mov [r8], eax; mov [r8+4], ebx; mov [r8+8], ecx;
# mov [r8+12], edx; pop rbx; ret
_CPUID = bytes.fromhex("89f8 89f1 4989d0 53 0fa2 418900 41895804 41894808 4189500c 5b c3")
_RETURN, _SYSCALL, _CPUID_AT = 0, 16, 32  # places in the page of code, the first two of an instruction that stops
_HLT = b"\xf4"


class _Memory:
    """Page tables of 1 GiB pages: the CPU sees this process's memory at this process's addresses."""

    def __init__(self) -> None:
        self._tables = mmap.mmap(-1, _TABLES_BYTES)
        self._at = _address(self._tables)
        self._gibs: list[int] = []  # of this process, that are the CPU's from _FIRST on
        upper: dict[int, int] = {}  # 512 GiB of this process: page of its table
        for gib in _own_gibs():
            if gib >> 9 not in upper:
                upper[gib >> 9] = len(upper) + 1
                self._write(0, gib >> 9, upper[gib >> 9] * _PAGE | 0b111)
            self._gibs.append(gib)
            self._write(upper[gib >> 9], gib & 511, (_FIRST + len(self._gibs) - 1) * _GIB | 0b10000111)

    def host(self, physical: int) -> int:
        """Where a page of the CPU's memory is in this process."""
        gib, offset = divmod(physical & -_PAGE, _GIB)
        return self._at + offset if gib == 0 else self._gibs[gib - _FIRST] * _GIB + offset

    def _write(self, page: int, entry: int, value: int) -> None:
        ctypes.c_uint64.from_address(self._at + page * _PAGE + 8 * entry).value = value


def _own_gibs() -> list[int]:
    """The GiB in which this process has memory, and those around, where it will have more; not that of address 0."""
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    found = {gib for first, end in ranges for gib in range(int(first, 16) // _GIB, int(end, 16) // _GIB + 1)}
    around = {gib + more for gib in found for more in range(-_AROUND, _AROUND + 1)}
    return sorted(gib for gib in around if 0 < gib < 1 << 17)


class _Detours:
    """Scatters and gathers whose vector of indices is one of zmm16 to zmm31.

    This Bochs calls them undefined: it takes the fifth bit of that register's number for one of an operand which they
    do not have. A detour does the same with the indices in one of zmm0 to zmm7, and goes back.
    """

    def __init__(self) -> None:
        self._code = mmap.mmap(-1, _DETOURS_BYTES)
        self._at, self._end = _address(self._code), 64  # the first 64 bytes keep the register that is borrowed
        self._known: dict[int, int] = {}

    def around(self, after: int) -> int | None:
        """Where to go on instead of the instruction before `after`; None if it is no such instruction."""
        if after not in self._known:
            code = next((code for n in (7, 8, 11) if _is_refused(code := ctypes.string_at(after - n, n))), None)
            if code is None:
                return None
            self._known[after] = self._write(code, after)
        return self._known[after]

    def _write(self, code: bytes, after: int) -> int:
        _, p0, _, p2, _, modrm, sib = code[:7]
        data = (modrm >> 3 & 7) | (~p0 >> 4 & 8) | (~p0 & 16)
        indices = (sib >> 3 & 7) | (~p0 >> 3 & 8)  # less 16
        low = next(register for register in range(8) if register != data)
        changed = bytearray(code)
        changed[1], changed[3], changed[6] = p0 | 0x40, p2 | 8, sib & ~0x38 | low << 3
        start = self._end
        self._append(self._move(0x7F, low, start))
        self._append(_vmovdqa64(0x6F, low, 0 if indices & 8 else 0x20, 0xC0 | indices & 7))
        self._append(bytes(changed))
        self._append(self._move(0x6F, low, self._end))
        self._append(b"\xff\x25\0\0\0\0" + after.to_bytes(8, "little"))  # jmp [rip]
        self._end += -self._end % 64
        return self._at + start

    def _append(self, part: bytes) -> None:
        self._code[self._end : self._end + len(part)] = part
        self._end += len(part)

    @staticmethod
    def _move(opcode: int, low: int, place: int) -> bytes:
        """Store (7F) or load (6F) a register at the start of the page, relative to the end of these 10 bytes."""
        return _vmovdqa64(opcode, low, 0x60, 0x05) + (-(place + 10)).to_bytes(4, "little", signed=True)


def _vmovdqa64(opcode: int, register: int, index_bits: int, modrm: int) -> bytes:
    """Of zmm `register` (below 8); the bits X and B of the other operand as they are coded, and its part of ModRM."""
    return bytes((0x62, 0x91 | index_bits, 0xFD, 0x48, opcode, modrm | register << 3))


def _is_refused(code: bytes) -> bool:
    """Whether this is a whole EVEX scatter or gather with indices in zmm16 or above (V' is coded inverted)."""
    evex, p0, _, p2, opcode, modrm, sib = code[:7]
    length = {0: 11 if sib & 7 == 5 else 7, 1: 8, 2: 11}.get(modrm >> 6)
    is_indexed = p0 & 7 == 2 and (0x90 <= opcode <= 0x93 or 0xA0 <= opcode <= 0xA3) and modrm & 7 == 4
    return evex == 0x62 and is_indexed and not p2 & 8 and length == len(code)


class Cpu:
    """One of Bochs' CPUs. A process can have one."""

    def __init__(self, model: str, bochscpu: Any):
        self._choose(model, bochscpu)
        self._lock, self._local = threading.Lock(), threading.local()
        self._bochs, self._memory, self._detours = bochscpu, _Memory(), _Detours()
        self._code = mmap.mmap(-1, _PAGE)
        self._code[_RETURN : _RETURN + 1] = self._code[_SYSCALL : _SYSCALL + 1] = _HLT
        self._code[_CPUID_AT : _CPUID_AT + len(_CPUID)] = _CPUID
        self._code_at = _address(self._code)
        self._session, self._hook = bochscpu.Session(), bochscpu.Hook()
        self._session.missing_page_handler = self._give_page
        self._hook.hlt, self._hook.exception = self._halted, self._excepted
        self._fault: tuple[int, int] | None = None

    @staticmethod
    def _choose(model: str, bochscpu: Any) -> None:
        """Bochs reads its parameters when a CPU is made; the package has no other way to set them."""
        bochs = ctypes.CDLL(bochscpu._bochscpu.__file__)
        bochs.sim_get_param_enum.restype = ctypes.c_void_p
        parameter = ctypes.c_void_p(bochs.sim_get_param_enum(b"cpu.model"))
        bochs._ZN14bx_param_num_c9set_rangeEmm(parameter, ctypes.c_ulong(0), ctypes.c_ulong(99))
        bochs._ZN14bx_param_num_c3setEl(parameter, ctypes.c_long(MODELS[model]))

    # ---- what the emulator calls ----

    def _give_page(self, physical: int) -> None:
        self._bochs.memory.page_insert(physical & -_PAGE, self._memory.host(physical))

    def _halted(self, session: Any, cpu: int) -> None:
        session.stop()

    def _excepted(self, session: Any, cpu: int, vector: int, error: int) -> None:
        self._fault = vector, error
        session.stop()

    # ---- calls ----

    def function(self, address: int) -> Callable[[int, int, int], None]:
        """The C function at an address, as ctypes gives it, run by this CPU."""
        return lambda args, thread, n_threads: self.call(address, args, thread, n_threads)

    def call(self, address: int, first: int = 0, second: int = 0, third: int = 0) -> None:
        """Run `void (int64, int64, int64)`. The process ends where the CPU has not what the code asks for."""
        top = self._stack()
        ctypes.c_uint64.from_address(top).value = self._code_at + _RETURN
        state = self._ready()
        state.rip, state.rsp, state.rdi, state.rsi, state.rdx = address, top, first, second, third
        while True:
            with self._lock:
                state = self._run(state)
            if state.rip == self._code_at + _RETURN + len(_HLT):
                return
            if state.rip != self._code_at + _SYSCALL + len(_HLT) or state.rax != _FUTEX:
                _end(f"stops before {state.rip:#x} with eax {state.rax}")
            state.rip, state.rflags, state.rax = state.rcx, state.r11, 0
            time.sleep(0)  # another thread's turn; a sleeper may wake for no reason

    def _run(self, state: Any) -> Any:
        """Go on until the code is done or sleeps; the registers then."""
        cpu = self._session.cpu
        while True:
            self._fault = None
            cpu.set_state(state)
            self._session.run([self._hook])
            state = cpu.state  # where it stopped for a fault, rip is that of the next instruction
            if self._fault is None:
                return state
            detour = self._detours.around(state.rip) if self._fault[0] == _UNDEFINED else None
            if detour is None:
                what = f"raises exception {self._fault[0]}, error {self._fault[1]}, address {state.cr2:#x}"
                _end(f"{what}, before {state.rip:#x}: {ctypes.string_at(state.rip - 16, 16).hex(' ')}")
            state.rip = detour

    def _stack(self) -> int:
        """Where a call's return address goes, in a stack of this thread's own."""
        if not hasattr(self._local, "stack"):
            self._local.stack = mmap.mmap(-1, _STACK_BYTES)
        return _address(self._local.stack) + _STACK_BYTES - 64 - 8

    def _ready(self) -> Any:
        """Registers of a program of 64 bits that Linux has started, but for its privilege: it is the system's."""
        state = self._bochs.State()
        state.cr0, state.cr3, state.efer = 0x80010033, 0, 0xD01  # paging, write protection; long mode, system calls
        state.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 18  # wide page tables, vector registers, XSAVE
        state.xcr0 = 0b11100111  # x87, SSE, AVX, AVX-512
        state.mxcsr, state.mxcsr_mask, state.rflags = 0x1F80, 0xFFFF, 2
        state.cs = self._segment(0x10, 0xA09B)
        state.ss = state.ds = state.es = state.fs = state.gs = self._segment(0x18, 0xC093)
        state.tr, state.ldtr = self._segment(0x20, 0x8B), self._segment(0, 0x82)
        state.star, state.lstar, state.sfmask = 0x10 << 32, self._code_at + _SYSCALL, 0
        return state

    def _segment(self, selector: int, attributes: int) -> Any:
        segment = self._bochs.Segment()
        segment.present, segment.selector, segment.attr = True, selector, attributes
        segment.base, segment.limit = 0, 0xFFFFFFFF
        return segment

    # ---- what it is ----

    def cpuid(self, leaf: int, subleaf: int = 0) -> list[int]:
        """The instruction's eax, ebx, ecx, edx."""
        out = (ctypes.c_uint32 * 4)()
        self.call(self._code_at + _CPUID_AT, leaf, subleaf, ctypes.addressof(out))
        return list(out)

    @property
    def name(self) -> str:
        words = [word for leaf in (0x80000002, 0x80000003, 0x80000004) for word in self.cpuid(leaf)]
        return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0").decode()

    @property
    def flags(self) -> list[str]:
        """Those features that edgeq asks for, by Linux's names."""
        return [
            name
            for (leaf, subleaf), register, bits in _FLAGS
            for name, bit in bits.items()
            if self.cpuid(leaf, subleaf)[register] >> bit & 1
        ]


def _end(why: str) -> NoReturn:
    """As a signal would: the threads of a team wait for one that is gone for ever."""
    print(f"the emulated CPU {why}", flush=True)
    os._exit(1)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def install(model: str, package: Path) -> Cpu:
    """From now on edgeq finds itself on this CPU, and its kernels run there. `package`: the folder with bochscpu."""
    sys.path.append(str(package))
    import bochscpu
    import bochscpu.memory

    cpu = Cpu(model, bochscpu)
    row = {"flags": " ".join(cpu.flags), "vendor_id": "GenuineIntel", "model name": cpu.name}
    cpuinfo._processors = lambda: [row]
    library._PROTOTYPE = cpu.function
    return cpu


def main(model: str, package: str, *script: str) -> None:
    """Run a script of Python on the CPU; without one, say what the CPU is."""
    cpu = install(model, Path(package))
    if script:
        sys.argv[:] = script
        runpy.run_path(script[0], run_name="__main__")
    else:
        print(f"{cpu.name}, with {' '.join(cpu.flags)}: {library.chosen_isa().name}", flush=True)
    os._exit(0)  # the package does not end well


if __name__ == "__main__":
    main(*sys.argv[1:])
