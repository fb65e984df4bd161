"""The images in a conversation's messages, and where they stand in its prompt."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.errors import UsageError

MOST_IMAGES = 64  # of a conversation
MOST_BYTES = 64 << 20  # of an image's file

Message = Mapping[str, Any]


class ImagePart(dict[str, str]):
    """What stands in a message for an image that was taken out of it, which no JSON can say."""

    def __init__(self) -> None:
        super().__init__(type="image")


def without_images(messages: Sequence[Message], local: bool = True) -> tuple[list[Message], list[object]]:
    """The messages with an ImagePart for each part that is an image, and these images, in their order: what stands
    at `image` of a part of type "image", if it is `local`, as that may be a path, or the bytes of a data: URL at
    `image_url` of one of type "image_url".

    Raises UsageError for a part that names no image, another URL, and too many.
    """
    found: list[object] = []
    plain: list[Message] = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, list | tuple):
            plain.append(message)
            continue
        parts = []
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind == "image_url" or (kind == "image" and local):
                found.append(_image(part, f"image {len(found) + 1}"))
                part = ImagePart()
            parts.append(part)
        plain.append({**message, "content": parts})
    if len(found) > MOST_IMAGES:
        raise UsageError(f"the conversation has {len(found)} images: give at most {MOST_IMAGES}")
    return (plain, found) if found else (list(messages), found)


def _image(part: Message, where: str) -> object:
    if part["type"] == "image":
        if part.get("image") is None:
            raise UsageError(
                f'{where}: its part of type "image" is without `image`: give a path, bytes or an array there'
            )
        return part["image"]
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(url, str):
        raise UsageError(f'{where}: its part of type "image_url" is without a URL: give a data: URL')
    return of_data_url(url, where)


def of_data_url(url: str, where: str) -> bytes:
    """The bytes that a data: URL holds. UsageError for any other URL, of which nothing is fetched."""
    if not url[:5].lower() == "data:":
        raise UsageError(f"{where}: its URL is {url!r:.40}: nothing is fetched: give a data: URL")
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise UsageError(f"{where}: its data: URL is not in base64: write data:image/png;base64,...")
    return of_base64(data, where)


def of_base64(data: str, where: str) -> bytes:
    """The bytes of an image in base64, whose lines may be broken. UsageError for what is none."""
    data = data.replace("\n", "").replace("\r", "")
    if len(data) > MOST_BYTES * 4 // 3 + 4:
        raise UsageError(f"{where}: is larger than {MOST_BYTES >> 20} MiB: give a smaller one")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{where}: is no base64: encode the bytes of its file") from None


def expanded(prompt: str, mark: str, images: Sequence[str]) -> str:
    """A prompt with the texts in which its images stand, of which each has a `mark` there. UsageError where there are
    more of these, or fewer."""
    texts = prompt.split(mark)
    if len(texts) != len(images) + 1:
        what = f"the conversation has {len(images)} images, and its prompt {len(texts) - 1} places for them"
        raise UsageError(f"{what}: take a chat template that writes {mark} for each")
    return "".join(part for pair in zip(texts, [*images, ""], strict=True) for part in pair)
