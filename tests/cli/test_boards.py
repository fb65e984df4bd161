"""What a machine leaves to a model."""

import pytest

from edgeq.cli.boards import memory
from edgeq.cli.units import size
from edgeq.errors import UsageError


def test_a_board_s_memory_is_its_ram_without_what_the_system_takes() -> None:
    assert memory("pi4-2gb") == memory("2GB") == memory("2 GiB") == memory("2048MB") == (2048 * 15 / 16 - 256) * 2**20
    assert memory("PI5-8GB") > 7 * 2**30
    assert memory("pi-zero2") == memory("0.5GB") > 200 * 2**20


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ("pi9-2gb", r"'pi9-2gb' is unknown: give its RAM, as 4GB, or one of pi-zero2, pi3, pi4-1gb"),
        ("128MB", "a machine of 128MB has no memory left for a model: 256 MiB are the system's"),
        ("4 gigs", "'4 gigs' is no size: give one as 700MB"),
        ("", "'' is unknown"),
    ],
)
def test_what_is_no_machine_is_refused(machine: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        memory(machine)


def test_sizes() -> None:
    assert size("700MB") == 700e6 and size("1.5GiB") == 1.5 * 2**30 and size("12") == 12 and size("2k") == 2000
    for wrong in ("MB", "-1", "1TB", "1,5GB"):
        with pytest.raises(UsageError, match="is no size"):
            size(wrong)
