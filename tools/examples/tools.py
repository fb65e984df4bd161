"""Have a model call Python functions.

    python tools/examples/tools.py MODEL QUESTION

MODEL is an .eqf or .gguf file, a checkpoint's folder or a Hub repository; it needs a chat template.
"""

import sys
from datetime import datetime
from typing import Any

import edgeq


def clock() -> str:
    """Tells the date and the time of day."""
    return f"{datetime.now():%A, %d %B %Y, %H:%M}"


def add(numbers: list[float]) -> float:
    """Adds numbers.

    Args:
        numbers: What is to be added
    """
    return sum(numbers)


FUNCTIONS = {function.__name__: function for function in (clock, add)}


def main(path: str, question: str) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    with edgeq.load(path) as model:
        for _ in range(4):  # calls, at most, before it must answer
            answer = model.chat(messages, max_tokens=200, temperature=0, tools=[*FUNCTIONS.values()])
            for piece in answer:
                print(piece, end="", flush=True)
            messages.append(answer.message)
            for call in answer.tool_calls:
                result = FUNCTIONS[call.name](**call.arguments)
                print(f"[{call.name}{dict(call.arguments)} -> {result}]")
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
            if not answer.tool_calls:
                break
    print()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except edgeq.EdgeqError as error:  # all that bad input can raise; its message is one line
        sys.exit(f"tools: {error}")
