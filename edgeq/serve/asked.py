"""What requests of all APIs ask of the sampler, and what must not be passed over in silence."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from edgeq.decode.sampler_steps import Sampling, names, options
from edgeq.engine.arguments import stop_strings
from edgeq.serve.failures import Failure, invalid, unsupported
from edgeq.vision.image_parts import without_images

if TYPE_CHECKING:
    from edgeq.engine.seeing import Sight
    from edgeq.serve.engine import Engine

MOST_STOPS = 64
MOST_TEXTS = 2048

# Fields of OpenAI's API and of servers like it that change an answer -> the values with which they change nothing,
# beside null, false, 0 and what is empty. Those that the sampler has an option for are followed instead.
CHANGING: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "bad_words": (),
    "best_of": (1,),
    "dry_multiplier": (),
    "dynatemp_range": (),
    "frequency_penalty": (),
    "function_call": ("none", "auto"),
    "functions": (),
    "grammar": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (),
    "json_schema": (),
    "length_penalty": (1,),
    "logit_bias": (),
    "min_tokens": (),
    "mirostat": (),
    "modalities": (["text"],),
    "n_probs": (),
    "presence_penalty": (),
    "stop_token_ids": (),
    "structured_outputs": (),
    "suffix": (),
    "tfs_z": (1,),
    "top_a": (),
    "typical_p": (1,),
    "use_beam_search": (),
    "web_search_options": (),
    "xtc_probability": (),
}


def sampling(raw: Mapping[str, Any]) -> Sampling:
    """The sampler's options among the fields of a request, also by llama.cpp's and Ollama's names."""
    known, named, found = options(), names(), {}
    for field, value in raw.items():
        name = named.get(field)
        if name is None or name == "allowed":  # which takes a function
            continue
        option = known[name]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = option.means.get(value, value)
            if option.kind is int and isinstance(value, float) and value.is_integer():
                value = int(value)
        if value is None:  # as if it were not there
            continue
        found[name] = _by_token(value) if name == "logit_bias" else value
    return cast(Sampling, found)


def _by_token(bias: Any) -> dict[int, Any]:
    """OpenAI's form of a bias, in which tokens are texts of their ids."""
    if not isinstance(bias, dict) or not all(re.fullmatch(r"-?[0-9]{1,9}", token) for token in bias):
        raise invalid("logit_bias must be an object of token ids and numbers", "logit_bias")
    return {int(token): value for token, value in bias.items()}


def refuse(raw: Mapping[str, Any], changing: Mapping[str, tuple[Any, ...]] = CHANGING) -> None:
    """Raise Failure for a field that would change the answer and is not followed."""
    followed = names()
    for field, neutral in changing.items():
        value = raw.get(field)
        if not value or value in neutral or field in followed:
            continue
        raise unsupported(field)


def limit(*given: int | None, usual: int | None = None) -> int | None:
    """The most tokens of an answer: the first number among those `given`; -1 is no limit, as llama.cpp has it."""
    found = next((one for one in given if one is not None), usual)
    return None if found == -1 else found


def stops(value: str | list[str] | None) -> tuple[str, ...]:
    """Stop strings; an empty one is none."""
    found = tuple(text for text in stop_strings(value or ()) if text)
    if len(found) > MOST_STOPS:
        raise invalid(f"stop has {len(found)} texts: give at most {MOST_STOPS}", "stop")
    return found


def texts(value: Any, field: str) -> list[str]:
    """One text, or a list of them, to be embedded. Raises Failure for what is neither."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
        raise invalid(f"{field} must be a text or a list of texts", field)
    if len(found) > MOST_TEXTS:
        raise invalid(f"{field} has {len(found)} texts: give at most {MOST_TEXTS}", field)
    return found


def inputs(value: Any, field: str) -> list[str | list[int]]:
    """As `texts`, each of which may be token ids instead; a list of ids alone is one text. Raises Failure."""
    found = [value] if are_ids(value) else value
    if not isinstance(found, list) or not any(are_ids(one) for one in found):
        return [*texts(found, field)]
    if not all(isinstance(one, str) or are_ids(one) for one in found) or len(found) > MOST_TEXTS:
        raise invalid(f"{field} must be a text, token ids, or a list of these, at most {MOST_TEXTS}", field)
    return found


def are_ids(value: Any) -> bool:
    """Whether it is a list of numbers, not empty."""
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def messages(talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation in OpenAI's form, checked; a developer's message is the system's. Raises Failure."""
    if not talk:
        raise invalid("messages is empty: give at least one message", "messages")
    checked = []
    for i, message in enumerate(talk):
        role = message.get("role")
        if role not in ("system", "developer", "user", "assistant", "tool", "function"):
            raise Failure(
                400, f"messages[{i}].role is {role!r:.40}: give system, user, assistant or tool", param="messages"
            )
        content = message.get("content")
        if content is None and not (role == "assistant" and message.get("tool_calls")):
            raise Failure(400, f"messages[{i}] has no content", param="messages")
        if content is not None and not isinstance(content, str | list):
            raise Failure(400, f"messages[{i}].content must be text, or a list of parts", param="messages")
        if role == "assistant" and message.get("tool_calls"):
            _check_calls(message["tool_calls"], i)
        if role == "assistant" and isinstance(content, list):  # as one text, which can be gone on with
            message = {**message, "content": "\n".join(_texts(content, f"messages[{i}].content"))}
        checked.append({**message, "role": "system"} if role == "developer" else message)
    return checked


def with_images(
    engine: "Engine", talk: list[dict[str, Any]], field: str = "messages"
) -> tuple[list[Mapping[str, Any]], "Sight | None"]:
    """A conversation without its images, and these. Raises Failure, which names the request's `field`, where the model
    sees none, UsageError for one that cannot be read; nothing is fetched."""
    parts = [part for message in talk if isinstance(message.get("content"), list) for part in message["content"]]
    if not any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts):
        return list(talk), None
    if not engine.model.sees:
        name = os.path.basename(engine.model.file.path)
        raise invalid(f"{field} has images, and the model {name} reads text alone: leave them out", field)
    plain, given = without_images(talk, local=False)
    return plain, engine.model.sight(given)


def _check_calls(calls: Any, number: int) -> None:
    """Raise Failure for calls that are not in OpenAI's form."""
    for call in calls if isinstance(calls, list) else [None]:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(
                f"messages[{number}].tool_calls must be calls with a function's name and arguments", "messages"
            )
        if not isinstance(function.get("arguments"), str | dict | None):
            raise invalid(f"messages[{number}].tool_calls: arguments must be JSON within a text", "messages")


def _texts(parts: list[Any], field: str) -> list[str]:
    """The texts of a message's parts. Raises Failure for a part that is no text."""
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise Failure(400, f"{field} has a part that is no text: this reads text only", param="messages")
    return [str(text) for text in texts]
