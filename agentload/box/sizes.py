"""What sizes alone decide of a request, whether it has text or not: if there is room for it, how much of its reply is
reasoning."""

from typing import Final

ALL: Final = (1 << 64) - 1


def fits(prompt: int, most: int, context: int) -> bool:
    """Whether a prompt, and the most it may be answered, have room in the context."""
    return prompt < context and prompt + most <= context


def thought_of(prompt: int, output: int, seed: int, share: float) -> int:
    """Tokens of reasoning in a reply whose length is forced, where a `share` of replies begin with some.

    In virtual time prompts have sizes and no text, and must be answered alike.
    """
    if not share:
        return 0
    number = hash((prompt, output, seed & ALL)) & ALL
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & ALL  # splitmix64's finaliser
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & ALL
    if float(number >> 32) >= share * 2.0**32:
        return 0
    return round(output * (0.2 + 0.6 * (number & 0xFFFFFFFF) / 2**32))
