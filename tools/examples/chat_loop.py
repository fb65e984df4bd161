"""Chat in a terminal, in a few lines.

    python tools/examples/chat_loop.py MODEL

MODEL is an .eqf or .gguf file, a checkpoint's folder or a Hub repository. An empty line ends.
"""

import sys

import edgeq


def main(path: str) -> None:
    messages: list[dict[str, str]] = []
    with edgeq.load(path) as model:
        while True:
            print("> ", end="", flush=True)
            question = sys.stdin.readline().strip()
            if not question:
                break
            messages.append({"role": "user", "content": question})
            answer = ""
            for piece in model.chat(messages, max_tokens=200, temperature=0.7):
                print(piece, end="", flush=True)
                answer += piece
            print()
            messages.append({"role": "assistant", "content": answer})  # what was said is not computed again


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except edgeq.EdgeqError as error:  # all that bad input can raise; its message is one line
        sys.exit(f"chat_loop: {error}")
