"""How many tokens of a prompt a pass takes, so that Ctrl-C is heard, and others get their next token, in time."""

PIECE_S = 0.5  # a pass in which a prompt is alone takes about so long
PASS_S = 0.2  # and one in which others wait for their next token
LEAST_PIECE, LARGEST_PIECE = 16, 512  # tokens


class Pace:
    """What passes of a prompt took, by which the next ones are cut."""

    def __init__(self) -> None:
        self.alone = LEAST_PIECE  # tokens that take PIECE_S

    @property
    def beside_others(self) -> int:
        """Tokens that take PASS_S."""
        return max(LEAST_PIECE, int(self.alone * PASS_S / PIECE_S) // 16 * 16)

    def note(self, tokens: int, seconds: float) -> None:
        """So many took so long: the next piece is a multiple of 16, which the kernels like best."""
        size = int(tokens * PIECE_S / max(seconds, 1e-9)) // 16 * 16
        self.alone = max(LEAST_PIECE, min(size, LARGEST_PIECE))
