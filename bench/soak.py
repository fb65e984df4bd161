"""A server under clients that leave whenever they like: whether it forgets all of them.

    python bench/soak.py model.eqf --requests 10000

Each client asks for a text, streamed or whole, and mostly leaves before its end, by closing or by a reset. Told are the
answers, and after each tenth of the requests what memory the server holds, and what of it are the texts that it keeps
on purpose, whose room is filled once before; at the end what it still computes.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil
import script


async def wander(port: int, requests: int, clients: int = 16, seed: int = 0, patience: float = 0.3) -> Counter[str]:
    """Ask for so many texts, `clients` at a time, and leave after up to `patience` seconds; how they ended: the status
    of an answer, or "left"."""
    chance, ends, numbers = random.Random(seed), Counter[str](), iter(range(requests))

    async def client() -> None:
        for number in numbers:
            ends[await _ask(port, number, chance, patience)] += 1

    await asyncio.gather(*[client() for _ in range(clients)])
    return ends


async def _ask(port: int, number: int, chance: random.Random, patience: float) -> str:
    words = " ".join(chance.choices(["one", "two", "red", "blue", "sun", "sea"], k=chance.randint(1, 60)))
    fields = {"prompt": f"{words} {number % 7}", "max_tokens": chance.randint(1, 80), "seed": number}
    content = _request({**fields, "stream": chance.random() < 0.5, "n": chance.choice([1, 1, 1, 3])})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        cut = chance.random() < 0.05
        writer.write(content[: chance.randint(1, len(content) - 1)] if cut else content)
        if chance.random() < 0.1:  # with a reset, where the connection is closed
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait = None if chance.random() < 0.2 and not cut else chance.random() * patience
        content = await asyncio.wait_for(reader.read(-1), wait)
        return content[9:12].decode() or "dropped"
    except (TimeoutError, ConnectionError):
        return "left"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _request(fields: Mapping[str, object]) -> bytes:
    body = json.dumps(fields).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def fill(port: int, clients: int = 16) -> None:
    """Have all the room for texts written to once. The system gives it as it is used, which is no growth."""

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request({"prompt": f"{number} is " + "a long text, " * 80, "max_tokens": 20}))
        await reader.read(-1)
        writer.close()

    await asyncio.gather(*map(client, range(2 * clients)))


def gauges(port: int) -> dict[str, int]:
    """What the server says that it computes and keeps."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.findall(r"^edgeq_(requests_\w+|kv_\w+)\{.*\} (\d+)$", text, re.M)
    return {name: int(value) for name, value in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=script.count, default=10_000)
    parser.add_argument("--clients", type=script.count, default=16)
    options = parser.parse_args()
    command = [sys.executable, "-m", "edgeq", "serve", str(options.model), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            port = 0
            for line in server.stderr:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    port = int(found[1])
                if "ready" in line.split():
                    break
            asyncio.run(fill(port, options.clients))
            process, ends, held = psutil.Process(server.pid), Counter[str](), []
            for tenth in range(10):
                ends += asyncio.run(wander(port, options.requests // 10, options.clients, seed=tenth))
                said = gauges(port)
                held.append((process.memory_info().rss, said["kv_used_bytes"]))
                print(f"{tenth + 1}: resident {held[-1][0] >> 10} KiB, texts {held[-1][1] >> 10} KiB", flush=True)
            print(dict(ends))
            (first, texts_first), (last, texts_last) = held[0], held[-1]
            grown, apart = last / first - 1, (last - texts_last) / (first - texts_first) - 1
            print(f"resident: {grown:+.2%} since the first tenth, {apart:+.2%} without texts; {said}")
        finally:
            server.terminate()


if __name__ == "__main__":
    script.run(main)
