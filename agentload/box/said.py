"""Replies that nobody wrote."""


class Said(str):
    """The text of a reply that nobody wrote: who it is, and how many tokens. Made by `agentload.box.prompts.said`."""

    __slots__ = ("key", "tokens")
    key: int
    tokens: int
