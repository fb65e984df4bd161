"""Options that several verbs share, and what they stand for."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from edgeq.cli.announcer import Announcer as Announcer
from edgeq.cli.announcer import announce as announce
from edgeq.decode import sampler_steps
from edgeq.decode.option import Option
from edgeq.errors import UsageError
from edgeq.system.input import read_text as read_text

if TYPE_CHECKING:
    from edgeq.engine.model import Model
    from edgeq.engine.timings import Timings

Function = TypeVar("Function", bound=Callable[..., Any])


def threads_option(default: str) -> Callable[[Function], Function]:
    """`--threads`; its help names the default that stands where EDGEQ_THREADS is not set either."""
    return click.option(
        "-t", "--threads", type=click.IntRange(1), help=f"Threads.  [default: EDGEQ_THREADS, or {default}]"
    )


def lora_option(what: str) -> Callable[[Function], Function]:
    """`--lora`, several times; its help says what is done with the adapters."""
    return click.option(
        "--lora",
        multiple=True,
        metavar="ADAPTER[:SCALE]",
        help=f"A LoRA adapter, a PEFT folder or a GGUF file, {what}; may be given several times.",
    )


def check_text(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Callback of arguments that a model reads. UsageError where the command line's bytes are not UTF-8."""
    for text in (value,) if isinstance(value, str) else value or ():
        check_utf8(text, parameter.opts[-1] if parameter.opts[-1].startswith("-") else f"the {parameter.name}")
    return value


def check_utf8(text: str, name: str) -> None:
    """UsageError where the bytes that `name` was given as are not UTF-8."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{name} is not UTF-8 text: convert it to UTF-8")


PREFIX = click.option(
    "--prefix",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Begin with a text that `edgeq prefix` evaluated: its system message, or its beginning of the prompt.",
)
IMAGES = click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An image that the first message is about.  [may be given several times]",
)
THREADS = threads_option("the fast cores, one thread each")
KV = click.option(
    "--kv",
    type=click.Choice(["f16", "q8_0", "f32"]),
    help="Element of the KV cache; q8_0 takes half the memory of f16.  [default: f16, or f32 for F32 weights]",
)
LORA = lora_option("added to the weights as they run")
DRAFT = click.option(
    "--draft",
    metavar="MODEL",
    help="A small model of the same vocabulary, which guesses tokens where that is faster; the text is the same.",
)
MMPROJ = click.option(
    "--mmproj", type=click.Path(path_type=Path), help="The GGUF file of what MODEL, a GGUF file too, sees images with."
)
FORCE = click.option("--force", is_flag=True, default=None, help="Load also what does not seem to fit in memory.")


def unescaped(text: str) -> str:
    """A text from the command line with its escapes read: a backslash before n, t, r, or another backslash."""
    return re.sub(r"\\([ntr\\])", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1]), text)


def _stops(context: click.Context, parameter: click.Parameter, value: Any) -> tuple[str, ...]:
    return tuple(unescaped(text) for text in check_text(context, parameter, value))


def _sampling(option: Option[Any]) -> Callable[[Function], Function]:
    """The option of a step of the sampler."""
    own = "the model's own, or " if option.config else ""
    flag = f"--{option.name.replace('_', '-')}"
    if option.is_number:
        default = "" if option.optional else f"  [default: {own}{option.default}]"
        callback = _meant(option)
        return click.option(
            flag, *option.flags, option.name, type=option.kind, callback=callback, help=option.help + default
        )
    help = f"{option.help} May be given several times."
    return click.option(flag, *option.flags, option.name, multiple=True, callback=_read(option), help=help)


def _meant(option: Option[Any]) -> Callable[..., Any]:
    """What an option's numbers stand for: as if not given where that is None."""
    return lambda context, parameter, value: option.means.get(value, value)


def _read(option: Option[Any]) -> Callable[..., Any]:
    """What an option's texts stand for."""

    def read(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        texts = _stops(context, parameter, value)
        try:
            return option.read(texts) if texts and option.read is not None else ()
        except ValueError:
            raise UsageError(f"{parameter.opts[-1]} is {' '.join(texts)}: it must be {option.must}") from None

    return read


_ENDS = (
    click.option(
        "-n",
        "--max-tokens",
        "--n-predict",
        type=click.IntRange(-1),
        callback=lambda context, parameter, value: None if value == -1 else value,
        help="End after so many tokens; -1 is no limit.  [default: -1]",
    ),
    click.option(
        "--stop",
        multiple=True,
        callback=_stops,
        help=r"End before this text; may be given several times. \n is a new line, \t a tab, \\ a backslash.",
    ),
    click.option(
        "--no-speculation",
        "speculate",
        flag_value=False,
        default=None,
        type=bool,
        help="Compute each token by itself, also those that are easy to guess; the text is the same.",
    ),
)
_MODEL = (
    THREADS,
    click.option(
        "-c",
        "--context",
        "--ctx-size",
        type=click.IntRange(0),
        help="Positions for prompt and answer together; 0 is all that the model was trained for.  [default: these, at "
        "most 4096]",
    ),
    KV,
    click.option(
        "--template", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Jinja chat template to use."
    ),
    LORA,
    FORCE,
    click.option(
        "--no-check",
        "check",
        flag_value=False,
        default=None,
        type=bool,
        help="Load also what has scales or values that are not finite.",
    ),
    click.option(
        "--preload", is_flag=True, default=None, help="Read the whole file from the disk first, and show how far it is."
    ),
)

_LOADING = ("threads", "context", "kv", "template", "lora", "force", "check", "preload")


def sampling_options(function: Function) -> Function:
    """Adds the options of `Model.generate`; the function gets those that were given as `generation`, a dict."""
    named = {name: option for name, option in sampler_steps.options().items() if option.is_number or option.read}
    declared = (*map(_sampling, named.values()), *_ENDS)
    return cast(Function, _gathered(function, declared, (*named, "max_tokens", "stop", "speculate"), "generation"))


def model_options(function: Function) -> Function:
    """Adds the options of `edgeq.load`; the function gets those that were given as `loading`, a dict."""
    return cast(Function, _gathered(function, _MODEL, _LOADING, "loading"))


def writing_options(function: Function) -> Function:
    """As `model_options`, for verbs by which a model writes."""
    return cast(Function, _gathered(function, (*_MODEL, DRAFT, MMPROJ), (*_LOADING, "draft", "mmproj"), "loading"))


def _gathered(function: Any, options: tuple[Any, ...], names: tuple[str, ...], into: str) -> Any:
    @functools.wraps(function)
    def wrapper(**values: Any) -> Any:
        given = {name: value for name in names if (value := values.pop(name)) not in (None, ())}
        return function(**values, **{into: given})

    for option in reversed(options):
        wrapper = option(wrapper)
    return wrapper


def made_runnable(path: str | Path) -> Path:
    """The `.eqf` file of whatever can be run: made now, with a bar, if it is none yet."""
    from edgeq.cli.progress import work_bar
    from edgeq.store.model_cache import runnable

    with work_bar() as progress:
        return Path(runnable(path, Announcer(), progress))


def load_model(path: Path, loading: dict[str, Any]) -> "Model":
    """The model, loaded as the options say."""
    from edgeq.cli.progress import bytes_bar, work_bar
    from edgeq.loading import load

    template = loading.get("template")
    with work_bar() as progress:
        model = load(
            path,
            threads=loading.get("threads"),
            context=loading.get("context"),
            kv=loading.get("kv"),
            chat_template=None if template is None else read_text(template),
            embeddings=loading.get("embeddings", False),
            lora=loading.get("lora", ()),
            draft=loading.get("draft"),
            mmproj=loading.get("mmproj"),
            force=bool(loading.get("force")),
            check=loading.get("check", True),
            announce=Announcer(),
            progress=progress,
        )
    if loading.get("preload"):
        with bytes_bar(f"reading {path.name}") as progress:
            model.file.read_through(progress)
    return model


def show_timings(timings: "Timings") -> None:
    """How long loading, prompt and generation took, on stderr."""
    kept = f" ({timings.cached_tokens} more kept)" if timings.cached_tokens else ""
    guessed = (
        f" ({timings.accepted_tokens} of {timings.drafted_tokens} guesses right)" if timings.drafted_tokens else ""
    )
    click.echo(
        f"load        {timings.load_s:8.3f} s\n"
        f"first token {timings.first_token_s:8.3f} s\n"
        f"prompt      {timings.prompt_s:8.3f} s  {timings.computed_tokens:6d} tokens "
        f"{timings.prompt_rate:9.2f} tokens/s{kept}\n"
        f"generation  {timings.generation_s:8.3f} s  {timings.generated_tokens:6d} tokens "
        f"{timings.generation_rate:9.2f} tokens/s{guessed}",
        err=True,
    )
