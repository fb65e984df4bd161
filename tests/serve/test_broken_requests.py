"""Requests that no honest client sends: each is refused or dropped in time, none is our fault, none holds us up."""

import json
import socket
import struct
import time
from contextlib import closing

import pytest
from counting import counting_model
from serving import hello, serving, wait_until

CHAT = "/v1/chat/completions"
WAIT = 10.0  # seconds; a request that is not answered and not dropped by then hangs
SOON = 0.3  # the server's patience here
GOOD = json.dumps(hello()).encode()
POSTS = (
    CHAT,
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/show",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/models/load",
    "/models/unload",
)


@pytest.fixture(scope="module")
def port():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeq.serve.connections.PATIENCE_S", SOON)
        patch.setattr("edgeq.serve.bodies.PATIENCE_S", SOON)
        with serving({"counting": lambda say: counting_model()}) as served:
            wait_until(lambda: served.roster.ready)
            yield int(served.url.rpartition(":")[2])


def connected(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
    return closing(client)


def status(client) -> int | None:
    """Of the answer; None where the connection is ended without one."""
    content = b""
    try:
        while b"\r\n" not in content:
            part = client.recv(4096)
            if not part:
                return None
            content += part
    except ConnectionError:
        return None
    assert content.startswith(b"HTTP/1.1 "), content[:60]
    return int(content.split()[1])


def asked(port, *parts, pause=0.0) -> int | None:
    """The status of what is answered to these bytes."""
    with connected(port) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
        except ConnectionError:
            pass
        return status(client)


def well(port) -> bool:
    return asked(port, post(GOOD)) == 200


def post(body=b"", path=CHAT, *headers, length=None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(path=b"/health", *lines, version=b"HTTP/1.1", host=b"Host: localhost") -> bytes:
    first = b"GET " + path + b" " + version
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


def chunked(*parts: bytes, path=CHAT) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(parts)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ENDED = b"0\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"

HEADS = {  # what is sent -> statuses that it may have; None: the connection is ended
    "noise": (b"\x00\xff\x80 noise\r\n\r\n", {400}),
    "empty lines": (b"\r\n\r\n\r\n", {400, 408, None}),
    "no version": (b"GET /health\r\n\r\n", {400}),
    "version 0.9": (get(version=b"HTTP/0.9"), {200, 400}),
    "version 3": (get(version=b"HTTP/3.0"), {200, 400}),
    "a method of noise": (b"G\x01T /health HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    "an unknown method": (b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n", {405}),
    "a method in lower case": (b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n", {405}),
    "a method of 60 kB": (b"G" * 60000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 405, None}),
    "a zero in the path": (get(b"/hea\x00lth"), {400}),
    "a coded zero in the path": (get(b"/hea%00lth"), {404}),
    "a path that is no UTF-8": (get(b"/v1/models/%ff%fe"), {404}),
    "half a code in the path": (get(b"/v1/models/%f"), {404}),
    "a path out of the folder": (get(b"/../../etc/passwd"), {404}),
    "a coded path out of the folder": (get(b"/page.js/..%2f..%2fetc/passwd"), {404}),
    "a path of 60 kB": (get(b"/" + b"a" * 60000), {404}),
    "a query of noise": (get(b"/health?%ff&&==%00"), {200}),
    "an absolute address": (get(b"http://localhost/health"), {200, 404}),
    "a proxy's request": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 404, 405}),
    "a trace": (b"TRACE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", {405}),
    "options of all": (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", {404, 405}),
    "a websocket": (get(b"/health", b"Connection: Upgrade", b"Upgrade: websocket"), {200, 400, 426}),
    "an upgrade to HTTP/2": (get(b"/health", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), {200}),
    "HTTP/2 itself": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 403, 404, 405, None}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400, 408, None}),
    "no host": (get(host=b""), {400}),
    "two hosts": (get(b"/health", b"Host: evil.example"), {400}),
    "a host of noise": (get(host=b"Host: \xff\xfe"), {400, 403}),
    "a header without a colon": (get(b"/health", b"noise"), {400}),
    "a header with a space before its colon": (get(b"/health", b"X-A : b"), {400}),
    "a header of noise": (get(b"/health", b"X-A: \x00\x01"), {400}),
    "a header that is folded": (get(b"/health", b"X-A: a", b" b"), {200, 400}),
    "headers of 70 kB": (get(b"/health", b"X-A: " + b"a" * 70000), {400, 431}),
    "10,000 headers": (get(b"/health", *[b"X-%d: a" % i for i in range(10000)]), {400, 431}),
    "lines that end with LF alone": (b"GET /health HTTP/1.1\nHost: localhost\n\n", {200, 400}),
    "an expectation": (HEAD + b"Expect: the-best\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD, {200, 417}),
}
BODIES = {
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456", {400}),
    "a length below 0": (post(GOOD, length=-5), {400}),
    "a length that is no number": (post(GOOD, length="five"), {400}),
    "a length of 10 ** 30": (post(GOOD, length=10**30), {400, 413}),
    "a length of 17 MiB": (post(b"", length=17 << 20), {413}),
    "a length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + ENDED, {400}),
    "an unknown coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}),
    "chunks twice": (HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + ENDED, {400, 501}),
    "a size that is no number": (chunked(b"zz\r\nabc\r\n", ENDED), {400}),
    "a size below 0": (chunked(b"-5\r\nabc\r\n", ENDED), {400}),
    "a size of 30 digits": (chunked(b"f" * 30 + b"\r\nabc\r\n"), {400, 413}),
    "a chunk without its end": (chunked(b"3\r\nabcdef\r\n", ENDED), {400, None}),
    "an extension of 70 kB": (chunked(b"3;" + b"a" * 70000 + b"\r\nabc\r\n", ENDED), {400, None}),
    "17 MiB of chunks": (chunked(*[chunk(bytes(1 << 20))] * 17, ENDED), {413, None}),
    "trailers": (chunked(chunk(GOOD), b"0\r\nX-A: b\r\n\r\n"), {200, 400}),
    "one byte a chunk": (chunked(*[chunk(bytes([byte])) for byte in GOOD], ENDED), {200}),
    "more than its length": (post(GOOD) + b"noise\r\n\r\n", {200, 400}),
    "a body where none belongs": (get(b"/health", b"Content-Length: 3") + b"abc", {200}),
    "a body less than its length": (post(GOOD, length=len(GOOD) + 9), {408}),
    "a chunk less than its size": (chunked(b"ff\r\nabc"), {408}),
    "no body": (post(b"", length=100), {408}),
    "headers without an end": (HEAD, {408}),
    "half a line": (b"POST /v1/ch", {408}),
    "nothing": (b"", {408}),
}


@pytest.mark.parametrize("name", [*HEADS, *BODIES])
def test_bytes_that_are_no_request(port, name):
    content, allowed = (HEADS | BODIES)[name]
    began = time.monotonic()
    found = asked(port, content)
    assert found in allowed, found
    assert time.monotonic() - began < WAIT / 2
    assert well(port)


@pytest.mark.parametrize("content", [get(), post(GOOD)], ids=["headers", "body"])
def test_one_that_comes_slowly_is_not_waited_for(port, content):
    """Headers have a time in all, a body one for each part."""
    with connected(port) as client:
        began = time.monotonic()
        with pytest.raises(OSError):
            for byte in HEAD * 3:
                client.sendall(bytes([byte]))
                time.sleep(0.02)
        assert time.monotonic() - began < 3
    assert asked(port, content[:-3], content[-3:], pause=0.05) == 200
    assert well(port)


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/api/chat"])
@pytest.mark.parametrize("cut", [30, 150, 10**6], ids=["headers", "body", "answer"])
@pytest.mark.parametrize("how", ["reset", "closed", "half-closed"])
def test_clients_that_leave(port, path, cut, how):
    body = json.dumps({**hello(max_tokens=50), "model": "counting", "input": "a", "stream": True}).encode()
    with connected(port) as client:
        client.sendall(post(body, path)[:cut])
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half-closed":
            client.shutdown(socket.SHUT_WR)
            assert status(client) in (200, 400, 408, None)
    assert well(port)


DEEP = 100_000
CONTENTS = {
    "nothing": b"",
    "space": b"   \n",
    "no JSON": b"{messages: []}",
    "half JSON": GOOD[:-5],
    "two": GOOD + GOOD,
    "a list": b"[]",
    "a text": b'"messages"',
    "null": b"null",
    "a number": b"5",
    "NaN": b'{"messages": NaN}',
    "lists in lists": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "messages in messages": b'{"messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "no UTF-8": b'{"messages": "\xff\xfe"}',
    "half a character": b'{"messages": "\xe2\x82"}',
    "half a pair": rb'{"messages": [{"role": "user", "content": "\ud800"}], "input": "\ud800", "prompt": "\ud800"}',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a number of 6,000 digits": b'{"temperature": ' + b"9" * 6000 + b"}",
    "zeros": bytes(1000),
    "a mark of order": b"\xef\xbb\xbf" + GOOD,
    "compressed": b"\x1f\x8b\x08\x00" + bytes(50),
    "a key of 1 MB": b'{"' + b"a" * (1 << 20) + b'": 1}',
    "100,000 keys": json.dumps({str(i): i for i in range(100_000)}).encode(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_bodies_that_say_nothing(port, name):
    for path in POSTS:
        found = asked(port, post(CONTENTS[name], path))
        assert found is not None and 400 <= found < 500, path
    assert well(port)


VALUES = (
    True, -1, 10**400, 1e300, "x", "\x00", [], [None], {}, [5], {"type": "x"}, [{"role": "user"}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
)  # fmt: skip
OPTIONS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "presence_penalty", "repetition_penalty",
    "dry_multiplier", "stop", "mirostat",
)  # fmt: skip
CHATS = (
    "messages", "model", "stream", "stream_options", "n", "max_tokens", "logprobs", "top_logprobs", "tools",
    "tool_choice", "response_format", "chat_template_kwargs", "reasoning_effort", "max_completion_tokens",
)  # fmt: skip
OLLAMA = ("model", "stream", "options", "think", "keep_alive", "format", "tools", "messages", "prompt", "system", "raw")
RESPONSES = (
    "input", "instructions", "previous_response_id", "reasoning", "tools", "tool_choice", "text", "include", "store",
    "max_output_tokens", "top_logprobs", "metadata", "truncation", "background",
)  # fmt: skip
FIELDS = {
    CHAT: CHATS + OPTIONS,
    "/v1/completions": ("prompt", "echo", "logprobs", "suffix", "n", "max_tokens", "stream_options", "logit_bias"),
    "/v1/responses": RESPONSES,
    "/v1/responses/input_tokens": RESPONSES[:6],
    "/v1/embeddings": ("input", "model", "encoding_format", "dimensions"),
    "/v1/messages": ("messages", "system", "max_tokens", "stop_sequences", "tools", "thinking", "metadata", "stream"),
    "/v1/messages/count_tokens": ("messages", "system", "tools"),
    "/api/chat": OLLAMA,
    "/api/generate": OLLAMA,
    "/api/embed": ("model", "input", "truncate", "dimensions", "keep_alive"),
    "/api/show": ("model", "name"),
    "/tokenize": ("content", "prompt", "model", "add_special", "parse_special", "with_pieces"),
    "/detokenize": ("tokens", "model"),
    "/apply-template": ("messages", "tools", "chat_template_kwargs"),
    "/models/load": ("model",),
    "/models/unload": ("model",),
}


@pytest.mark.parametrize("path", POSTS)
def test_values_of_wrong_types(served, path):
    """Each field with each value beside a good request: an answer, or a refusal."""
    good = {**hello(), "model": "counting", "prompt": "a", "input": "a", "max_output_tokens": 2, "tokens": [97]}
    good |= {"content": "a"} if path == "/tokenize" else {}
    good |= {"options": {"num_predict": 2}} if path.startswith("/api/") else {}
    faults = []
    for field in FIELDS[path]:
        for value in VALUES:
            if "embed" in path and (value == [5] or isinstance(value, str)) == (field == "input"):
                continue  # a good request, and this model embeds nothing
            answer = served.http.post(path, content=json.dumps({**good, field: value}).encode())
            if answer.status_code >= 500 or "api_error" in answer.text:
                faults.append((field, value, answer.text[-300:]))
    assert not faults
