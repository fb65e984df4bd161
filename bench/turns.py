"""Engines as processes: resident ones that take turns, and ones that are timed whole. Standard library only.

Requests to a resident engine and its answers are one JSON line each. An engine script calls `serve`;
`Engine` is the other side. What an engine prints goes to stderr, never among answers.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

BATCH = 512  # tokens of a prompt that an engine takes at once


class EngineError(RuntimeError):
    """An engine ended, or answered with an error."""


class Engine:
    """A child process that answers requests; it sleeps while it waits for one."""

    def __init__(self, command: Sequence[str]):
        self.command = list(command)
        try:
            # a group of its own: Ctrl-C is for the script, which ends the engine
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
            )
        except OSError as error:
            raise EngineError(f"{command[0]} cannot be started: {error.strerror}") from None
        try:
            self.hello = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, request: str, **arguments: Any) -> Any:
        """The answer. Raises EngineError."""
        assert self.process.stdin is not None
        try:
            print(json.dumps({"request": request, **arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise EngineError(f"{self.command[1]} has ended") from None
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"{self.command[1]} ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self.command[1]}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End the process, whatever it is at: it has nothing to save."""
        self.process.kill()
        self.process.communicate()


def wall(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds of a process, from its start to its end. Raises EngineError if it fails."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error.strerror}") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise EngineError(f"{' '.join(command[:3])} ended with code {done.returncode}: {lines[-1]}")
    return seconds


def timed(run: Callable[[], None], least: float = 0.25) -> float:
    """Seconds of a run, the mean of as many as fill `least` seconds: a short one is hard to time."""
    runs, began = 0, time.perf_counter()
    while runs == 0 or time.perf_counter() - began < least:
        run()
        runs += 1
    return (time.perf_counter() - began) / runs


def serve(hello: Any, handlers: Mapping[str, Callable[..., Any]], *faults: type[Exception]) -> None:
    """Answer requests until stdin ends. `hello` is the first answer; `faults` are answered as errors, too."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints would break the answers
    print(json.dumps({"answer": hello}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": handlers[request.pop("request")](**request)}
        except (RuntimeError, ValueError, KeyError, MemoryError, *faults) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
