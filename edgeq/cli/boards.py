"""What memory a machine leaves to a model, by a board's name or its RAM."""

import re

from edgeq.cli.units import size
from edgeq.errors import UsageError

GIB, MIB = 1 << 30, 1 << 20
BOARDS = {
    "pi-zero2": GIB // 2,
    "pi3": GIB,
    **{f"pi4-{gb}gb": gb * GIB for gb in (1, 2, 4, 8)},
    **{f"pi5-{gb}gb": gb * GIB for gb in (1, 2, 4, 8, 16)},
}
# What is not a model's: of the RAM, the firmware's and kernel's share; what a system without a desktop takes
RESERVED, SYSTEM = 1 / 16, 256 * MIB


def memory(machine: str) -> float:
    """Bytes that a model may take on a board of BOARDS, or on a machine of so much RAM, as `4GB` (which are GiB).

    UsageError for what is neither, or leaves nothing.
    """
    ram = BOARDS.get(machine.lower())
    if ram is None:
        if not re.match(r"[\d.]", machine):
            raise UsageError(f"{machine!r} is unknown: give its RAM, as 4GB, or one of {', '.join(BOARDS)}")
        ram = round(size(re.sub(r"(?i)(?<=\d)\s*([KMG])B$", r"\1iB", machine)))
    left = ram * (1 - RESERVED) - SYSTEM
    if left <= 0:
        raise UsageError(f"a machine of {machine} has no memory left for a model: {SYSTEM // MIB} MiB are the system's")
    return left
