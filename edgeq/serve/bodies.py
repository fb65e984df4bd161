"""Requests' bodies, read within bounds and checked against what an API asks for."""

import asyncio
import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from edgeq.serve.failures import Failure

LARGEST = 16 << 20  # bytes
PATIENCE_S = 30.0  # for the next part of a body

Fields = TypeVar("Fields")


async def read(request: Request, kind: type[Fields]) -> tuple[Fields, dict[str, Any]]:
    """A JSON body as `kind` has it, and as it came. Raises Failure for what is no such thing."""
    data = await content(request)
    try:
        raw = msgspec.json.decode(data)
        if not isinstance(raw, dict):
            raise Failure(400, f"the body is a {type(raw).__name__}: it must be a JSON object")
        return msgspec.convert(raw, kind), raw
    except msgspec.ValidationError as error:
        found = re.search(r" - at `\$((?:\.|\[).*)`$", str(error)) or re.search(r"field `(\w+)`", str(error))
        raise Failure(400, str(error), param=found[1].lstrip(".") if found else None) from error
    except (msgspec.DecodeError, UnicodeError, ValueError, OverflowError) as error:
        raise Failure(400, f"the body is no JSON: {error}") from error
    except RecursionError as error:
        raise Failure(400, "the body is nested too deeply") from error


async def content(request: Request) -> bytes:
    """A body, within bounds. Raises Failure for one that is too large or does not come."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > LARGEST:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    stream = request.stream()
    while True:
        try:
            part = await asyncio.wait_for(anext(stream), PATIENCE_S)
        except StopAsyncIteration:
            return b"".join(parts)
        except TimeoutError:
            raise Failure(408, f"the body did not come within {PATIENCE_S:.0f} s") from None
        except ClientDisconnect:
            raise Failure(400, "the client left before its request was whole") from None
        size += len(part)
        if size > LARGEST:
            raise _too_large()
        parts.append(part)


def _too_large() -> Failure:
    return Failure(413, f"the body is larger than {LARGEST >> 20} MiB: send less")
