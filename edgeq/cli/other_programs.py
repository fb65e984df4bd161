"""What verbs and options of llama.cpp, Ollama and mlx-lm are here: the line that answers who types one."""

from collections.abc import Sequence

VERBS = {  # -> the verb here
    "benchmark": "bench",
    "cli": "chat",
    "complete": "run",
    "create": "convert",
    "delete": "models rm",
    "download": "pull",
    "generate": "run",
    "get": "pull",
    "help": "--help",
    "imatrix": "calibrate",
    "info": "show",
    "list": "models",
    "ls": "models",
    "perplexity": "eval",
    "quantize": "convert",
    "remove": "models rm",
    "rm": "models rm",
    "search": "models --recommended",
    "server": "serve",
}

NO_VERBS = {  # -> why there is none
    "cp": "a model is a file: copy it, or `edgeq serve NAME=FILE`",
    "launch": "start `edgeq serve`, and give the other program its address",
    "login": "models of the Hub that need it are fetched with HF_TOKEN, or after `hf auth login`",
    "ps": "models run in the process that asked for them; a server tells of its own at /api/ps",
    "push": "a model is a file: upload it as one",
    "stop": "a model ends with its chat or run; a server lets one go at POST /models/unload",
    "upload": "a model is a file: upload it as one",
}

_ALWAYS = "that is always so here: leave it out"
_CPU = "edgeq computes on the CPU alone: leave it out"
_TEMPLATE = "--raw completes plain text, anything else takes the model's chat template"
_STRUCTURED = "`edgeq run --schema` has an answer follow a JSON schema, or be any JSON; the server has response_format"
_EACH_MODEL = "`edgeq import model.gguf --mmproj FILE` makes one file of both"

OPTIONS = {  # -> what there is instead
    "--adapter-path": "--lora",
    "--alias": "`edgeq serve NAME=MODEL`",
    "--api-key": "EDGEQ_API_KEY, or --api-key-file",
    "--batch-size": "it is chosen for the CPU: leave it out",
    "--cache-type-k": "--kv",
    "--cache-type-v": "--kv",
    "--chat-template": "--template FILE",
    "--chat-template-file": "--template",
    "--color": _ALWAYS,
    "--cont-batching": _ALWAYS,
    "--conversation": "edgeq chat",
    "--draft-model": "--draft",
    "--file": "< FILE gives the prompt",
    "--flash-attn": _ALWAYS,
    "--format": _STRUCTURED,
    "--gpu-layers": _CPU,
    "--grammar": _STRUCTURED,
    "--hf-path": "the repository's name is the argument itself",
    "--hf-repo": "the repository's name is the MODEL itself, owner/name or owner/name:Q4_K_M",
    "--ignore-chat-template": "--raw",
    "--interactive": "edgeq chat",
    "--jinja": _ALWAYS,
    "--keepalive": "a model stays as long as its command; `edgeq serve` has --keep-alive",
    "--kv-bits": "--kv",
    "--log-disable": _ALWAYS,
    "--max-kv-size": "--context",
    "--metrics": _ALWAYS,
    "--mlock": "a file is mapped, and read once by --preload",
    "--mlx-path": "-o",
    "--mmproj": _EACH_MODEL,
    "--model": "the model is the argument itself",
    "--model-draft": "--draft",
    "--n-gpu-layers": _CPU,
    "--no-conversation": _TEMPLATE,
    "--no-display-prompt": _ALWAYS,
    "--no-mmap": "files are always mapped; --preload reads one first",
    "--outfile": "-o",
    "--outtype": "--type",
    "--parallel": "up to 16 requests are computed together: leave it out",
    "--predict": "-n",
    "--prompt-cache": "`edgeq prefix` writes one, for --prefix; chat has --session",
    "--prompt-cache-file": "`edgeq prefix` writes one, for --prefix",
    "--quantize": "--type",
    "--reverse-prompt": "--stop",
    "--simple-io": _ALWAYS,
    "--single-turn": "edgeq run",
    "--slots": _ALWAYS,
    "--system-prompt": "--system",
    "--threads-batch": "-t",
    "--think": "the model's template decides; on the server chat_template_kwargs set it",
    "--trust-remote-code": "no code of a repository is run here: leave it out",
    "--ubatch-size": "it is chosen for the CPU: leave it out",
    "--verbose": "--timings",
}

_SHORT = {
    "-a": "--alias",
    "-b": "--batch-size",
    "-cb": "--cont-batching",
    "-cnv": "--conversation",
    "-co": "--color",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
    "-f": "--file",
    "-fa": "--flash-attn",
    "-hf": "--hf-repo",
    "-i": "--interactive",
    "-m": "--model",
    "-md": "--model-draft",
    "-mm": "--mmproj",
    "-ngl": "--gpu-layers",
    "-no-cnv": "--no-conversation",
    "-np": "--parallel",
    "-q": "--quantize",
    "-r": "--reverse-prompt",
    "-st": "--single-turn",
    "-sys": "--system-prompt",
    "-tb": "--threads-batch",
    "-ub": "--ubatch-size",
    "-v": "--verbose",
}


def is_read_otherwise(arguments: Sequence[str], valued: Sequence[str]) -> bool:
    """Whether a command line has an option of another program's of several letters behind one dash, whose first one is
    among `valued`, the verb's own that values follow: `-ngl 99` would be `-n gl`, and 99 another argument."""
    before = ""
    for word in arguments:
        if word == "--":
            break
        if word in _SHORT and len(word) > 2 and word[:2] in valued and before not in valued:
            return True
        before = word
    return False


def option_instead(arguments: Sequence[str], known: Sequence[str]) -> str:
    """A line on the first option among a command line's that the verb, whose own are `known`, has not, and another
    program has; empty where there is none. To be asked after the command line was refused: what stands for an option
    may be an option's value."""
    for word in arguments:
        if word == "--":
            break
        flag = word.partition("=")[0]
        if flag not in known and (instead := OPTIONS.get(_SHORT.get(flag, flag))):
            return f"there is no option {flag} here: {instead}"
    return ""
