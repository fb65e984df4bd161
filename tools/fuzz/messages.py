"""What a refusal has to look like."""


def check_message(error: BaseException) -> str | None:
    """What is wrong with an error's message, if anything is."""
    text = str(error)
    if len(text.encode("utf-8", "replace")) > 1024:
        return f"message of {len(text)} characters"
    if not text.isprintable():
        return "message that is not one printable line"
    return None
