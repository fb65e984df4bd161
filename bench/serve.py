"""`edgeq serve` beside llama-server, on the same blocks and threads.

    python bench/serve.py model.eqf --peer llama-server --peer-model model.gguf

Asked of each, by turns, medians of --repeat turns:

- tokens per second of all clients together, 1, 2, 4, 8, 16 of them, 512 tokens in and 128 out each
- seconds to the first token of a prompt whose first 2000 tokens others have asked with, of 16 users
- the longest silence within a stream while another client's prompt of 4000 tokens comes in
- tokens per second of one client, beside what `edgeq bench` finds without HTTP

Prompts are token ids, drawn anew for each turn, so that nothing but the shared beginning is kept from before.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

import script
from turns import EngineError

NUMBERS = random.Random(0)
FIRST, LAST = 300, 8000  # ids of ordinary tokens in most vocabularies


def drawn(count: int) -> list[int]:
    """Token ids that nobody has asked with."""
    return [NUMBERS.randint(FIRST, LAST) for _ in range(count)]


@contextmanager
def started(command: Sequence[str], port: int, sign: str) -> Iterator[int]:
    """A server that is ready, as the path `sign` tells; its port. Raises EngineError where it does not come up."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 300
            while asyncio.run(_status(port, sign)) != 200:
                if process.poll() is not None or time.monotonic() > until:
                    raise EngineError(f"{command[0]} does not serve: try it by hand: {' '.join(command)}")
                time.sleep(0.2)
            yield port
        finally:
            process.terminate()


async def _status(port: int, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1]) if line else 0


async def asked(port: int, prompt: Sequence[int], tokens: int) -> tuple[list[float], int]:
    """(seconds from the request to each part of a stream, tokens that were generated)."""
    fields = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    body = json.dumps({**fields, "stream_options": {"include_usage": True}}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    began = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    times, generated = list[float](), 0
    while line := await reader.readline():
        if line.startswith(b"HTTP/1.1 ") and line.split()[1] != b"200":
            raise EngineError(f"the server on port {port} answers {line.decode().strip()}")
        if not line.startswith(b"data: {"):
            continue
        part = json.loads(line[6:])
        if part.get("choices"):
            times.append(time.perf_counter() - began)
        generated = (part.get("usage") or {}).get("completion_tokens", generated)
    writer.close()
    return times, generated or len(times)


async def together(port: int, clients: int, read: int, written: int) -> float:
    """Tokens per second of all clients."""
    began = time.perf_counter()
    answers = await asyncio.gather(*[asked(port, drawn(read), written) for _ in range(clients)])
    return sum(generated for _, generated in answers) / (time.perf_counter() - began)


async def first_token(port: int, shared: int, users: int) -> float:
    """Median seconds to the first token of prompts that begin alike, each with 20 tokens of its own."""
    beginning = drawn(shared)
    await asked(port, beginning, 1)
    return median([(await asked(port, [*beginning, *drawn(20)], 1))[0][0] for _ in range(users)])


async def silence(port: int, read: int) -> float:
    """The longest time between two parts of a stream while a long prompt comes in."""
    stream = asyncio.create_task(asked(port, drawn(32), 200))
    await asyncio.sleep(0.3)
    await asked(port, drawn(read), 1)
    times, _ = await stream
    return max(after - before for before, after in pairwise(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--peer", help="llama-server's program")
    parser.add_argument("--peer-model", help="the GGUF file of the same blocks")
    parser.add_argument("--threads", type=script.count, default=2)
    parser.add_argument("--clients", type=script.count, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--read", type=script.count, default=512)
    parser.add_argument("--written", type=script.count, default=128)
    parser.add_argument("--shared", type=script.count, default=2000)
    parser.add_argument("--long", type=script.count, default=4000)
    parser.add_argument("--users", type=script.count, default=16)
    parser.add_argument("--repeat", type=script.count, default=5)
    options = parser.parse_args()
    context = options.long + 64
    most, threads = max(options.clients), str(options.threads)
    own = [sys.executable, "-m", "edgeq", "serve", str(options.model), "--port", "8090", "-t", threads]
    servers = {"edgeq": ([*own, "-c", str(context)], 8090, "/ready")}
    if options.peer:
        peer = [options.peer, "-m", options.peer_model, "--port", "8091", "-t", threads, "-tb", threads]
        servers["llama-server"] = ([*peer, "-np", str(most), "-c", str(context * most)], 8091, "/health")
    work = {
        f"{n} clients, tokens/s": lambda port, n=n: together(port, n, options.read, options.written)
        for n in options.clients
    }
    work["first token after a shared beginning, s"] = lambda port: first_token(port, options.shared, options.users)
    work["longest silence of a stream, s"] = lambda port: silence(port, options.long)
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.repeat):
        for name, server in servers.items():
            with started(*server) as port:
                asyncio.run(asked(port, drawn(8), 4))  # what only the first one pays
                for what, measure in work.items():
                    found.setdefault((what, name), []).append(asyncio.run(measure(port)))
    for what in work:
        print(what, *[f"{name} {median(found[what, name]):.3f}" for name in servers], sep="  ")
    command = [
        *own[:3],
        "bench",
        str(options.model),
        "-t",
        threads,
        "-p",
        str(options.read),
        "-n",
        str(options.written),
    ]
    print(subprocess.run([*command, "-r", str(options.repeat)], capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    script.run(main)
