"""Replies that nobody wrote."""


class Said(str):
    """The text of a reply that nobody wrote: who it is, and how many tokens."""

    __slots__ = ("key", "tokens")
    key: int
    tokens: int


def said(key: int, tokens: int) -> Said:
    text = Said()
    text.key, text.tokens = key, tokens
    return text
