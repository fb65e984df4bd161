"""What of a conversation cannot be followed: each refusal names the field that asks for it."""

from edgeq.errors import UsageError


class Refused(UsageError):
    """A schema, a tool or a choice that no answer can follow.

    field  what asks for it; "" where nothing has a name
    code   what programs go by
    """

    def __init__(self, message: str, field: str = "", code: str = "invalid_value") -> None:
        super().__init__(message)
        self.field, self.code = field, code
