"""What a generation took."""

from dataclasses import dataclass


@dataclass
class Timings:
    """What the latest generation took, in seconds; it grows while the generation runs.

    The time that the caller spends between two pieces of text does not count.
    """

    load_s: float = 0.0
    computed_tokens: int = 0  # of the prompt
    cached_tokens: int = 0  # of the prompt, kept from what was computed before
    prompt_s: float = 0.0
    first_token_s: float = 0.0  # from the call to the first token: tokenizing and the prompt
    generated_tokens: int = 0
    generation_s: float = 0.0  # from the first token to the last
    drafted_tokens: int = 0  # guesses that were computed along with other tokens
    accepted_tokens: int = 0  # of these, those that were drawn

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens per second; 0 where nothing was measured."""
        return self.computed_tokens / self.prompt_s if self.prompt_s > 0 else 0.0

    @property
    def generation_rate(self) -> float:
        """Generated tokens per second after the first one, which belongs to the prompt; 0 if there was one at most."""
        return (self.generated_tokens - 1) / self.generation_s if self.generation_s > 0 else 0.0
