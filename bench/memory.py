"""Memory of a model that decodes: resident bytes beside file + KV cache, and who shares the file's pages. Linux only.

    python bench/memory.py model.eqf --context 2048

One process, then two at the same time, each load the file, read a prompt and decode. Printed per process: the most
that was ever resident, what of it is memory of its own, and for the mapping of the file, from /proc/self/smaps, its
resident, proportional (shared pages divided by their users), and written bytes, which must be none.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import script
from turns import EngineError

ALLOWANCE = 250 << 20  # interpreter, libraries, buffers: what resident memory may be above file and KV cache
PROMPT = 64
MAPPING = ("Rss", "Pss", "Shared_Clean", "Private_Clean", "Shared_Dirty", "Private_Dirty")


def status() -> dict[str, int]:
    """Bytes of /proc/self/status: VmHWM (the most that was resident), VmRSS, RssAnon, RssFile."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {key[0][:-1]: int(key[1]) * 1024 for key in lines if key and key[0].startswith(("Vm", "Rss"))}


def mapping(path: str) -> dict[str, int]:
    """Bytes of MAPPING, summed over the mappings of `path`."""
    wanted, found = os.path.realpath(path), dict.fromkeys(MAPPING, 0)
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, _, rest = line.partition(":")
        if head in found and inside:
            found[head] += int(rest.split()[0]) * 1024
        elif "-" in line.split(" ", 1)[0]:
            inside = line.endswith(wanted)
    return found


def decode(path: str, context: int, tokens: int) -> None:
    """What a measured process does: work, wait for a line until the others have worked, and report as JSON."""
    from edgeq.container.reader import open_file
    from edgeq.runtime.session import Session

    with open_file(path) as file, Session(file, context=context) as session:
        vocabulary = session.model.vocab_size
        logits = session.eval([i % vocabulary for i in range(PROMPT)])
        for _ in range(tokens):
            logits = session.eval([int(logits[-1].argmax())])
        print("ready", flush=True)
        sys.stdin.readline()
        report = {"status": status(), "mapping": mapping(path), "session": session.memory()}
    print(json.dumps(report), flush=True)
    sys.stdin.readline()  # pages stay shared until all have looked


def measure(path: str, processes: int, context: int, tokens: int) -> list[dict[str, dict[str, int]]]:
    """Reports of processes that hold the file at the same time."""
    command = [sys.executable, __file__, path, "--context", str(context), "--tokens", str(tokens), "--child"]
    children = [
        # groups of their own: Ctrl-C is for the script, which ends them
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
        for _ in range(processes)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                raise EngineError("a process ended early")
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        reports = []
        for child in children:
            assert child.stdout is not None
            reports.append(json.loads(child.stdout.readline()))
        return reports
    finally:
        for child in children:
            child.kill()
            child.communicate()


def show(reports: list[dict[str, dict[str, int]]]) -> bool:
    """Print; whether every process met the bar."""
    met = True
    for i, report in enumerate(reports):
        mib = {k: {name: value / 2**20 for name, value in part.items()} for k, part in report.items()}
        bar = report["session"]["weights"] + report["session"]["kv"] + ALLOWANCE
        ok = report["status"]["VmHWM"] <= bar and report["mapping"]["Private_Dirty"] == 0
        met &= ok
        print(
            f"process {i + 1} of {len(reports)}: most resident {mib['status']['VmHWM']:.1f} MiB, "
            f"file {mib['session']['weights']:.1f} + KV cache {mib['session']['kv']:.1f} + 250 = {bar / 2**20:.1f} MiB"
            f": {'met' if ok else 'NOT met'}"
        )
        print(f"  own memory (RssAnon) {mib['status']['RssAnon']:.1f} MiB, scratch {mib['session']['scratch']:.1f} MiB")
        print("  the file's mapping: " + ", ".join(f"{name} {mib['mapping'][name]:.1f}" for name in MAPPING) + " MiB")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=script.file)
    parser.add_argument("--context", type=script.count, default=2048)
    parser.add_argument("--tokens", type=script.count, default=16, help="tokens to decode after a prompt of 64")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("memory is read from /proc: this needs Linux")
    if options.child:
        decode(str(options.model), options.context, options.tokens)
        return
    met = [show(measure(str(options.model), count, options.context, options.tokens)) for count in (1, 2)]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    script.run(main)
