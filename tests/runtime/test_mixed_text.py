"""Keys of rows that stand in a text for tokens, and where these rows lie."""

import numpy as np
import pytest

from edgeq.runtime.mixed_text import MOST_ROWS, Given, around, ends, key_of


def test_keys_are_below_zero_and_differ() -> None:
    keys = [key_of(block, row) for block in (0, 1, 7) for row in (0, 1, MOST_ROWS - 1)]
    assert len({*keys}) == 9
    assert max(keys) < 0


def test_addresses() -> None:
    blocks = {3: np.arange(12, dtype=np.float32).reshape(3, 4), 9: np.ones((2, 4), np.float32)}
    given = Given(blocks)
    found = given.addresses(np.array([5, key_of(3, 2), 0, key_of(9, 1), key_of(3, 0)]))
    assert found[0] == found[2] == 0
    assert found[1] - found[4] == 32
    assert found[4] == blocks[3].ctypes.data
    assert found[3] == blocks[9].ctypes.data + 16
    assert given.addresses(np.array([1, 2])).tolist() == [0, 0]


@pytest.mark.parametrize("key", [key_of(4, 0), key_of(3, 1)])
def test_other_rows_are_none(key: int) -> None:
    with pytest.raises(KeyError):
        Given({3: np.zeros((1, 4), np.float32)}).addresses(np.array([key]))


# Two tokens, three rows of an image, two of another one right after it, a token, the first image's again
KEYS = [5, 6, *(key_of(2, row) for row in range(3)), *(key_of(0, row) for row in range(2)), 7]
KEYS += [key_of(2, row) for row in range(3)]


def test_where_rows_of_an_image_lie() -> None:
    inside = {3: (2, 5), 4: (2, 5), 6: (5, 7), 9: (8, 11), 10: (8, 11)}
    assert {at: around(KEYS, at) for at in range(len(KEYS) + 1)} == {
        at: inside.get(at, (at, at)) for at in range(len(KEYS) + 1)
    }
    assert around([], 0) == (0, 0)


def test_where_images_end() -> None:
    assert ends(np.array(KEYS)).tolist() == [1, 2, 5, 5, 5, 7, 7, 8, 11, 11, 11]
    assert ends(np.array([3, 3, 4])).tolist() == [1, 2, 3]
    assert ends(np.array(KEYS[2:3])).tolist() == [1]
