"""A tenant's own limits, held before a call is sent: requests and tokens in any stretch of a minute."""

import math

from asyncio_throttle.throttler import Throttler

from agents.chain import Chat
from agents.text import CHARACTERS_PER_TOKEN

MINUTE = 60.0
LOOK = 0.02
"""Seconds between two looks at whether there is room again."""
SHARES = 200
"""A token limit is held in this many shares: a throttler counts events, and a prompt has too many tokens for that."""


class Quota:
    """Limits in requests and tokens per minute; None is none."""

    def __init__(self, requests: int | None, tokens: int | None, period: float = MINUTE) -> None:
        self.requests = Throttler(requests, period, LOOK) if requests else None
        self.share = max(1, (tokens or 0) // SHARES)
        self.tokens = Throttler(max(1, tokens // self.share), period, LOOK) if tokens else None

    async def wait(self, chat: Chat) -> None:
        """Return when the call may be sent; a call larger than the whole limit waits for all of it."""
        if self.requests is not None:
            await self.requests.acquire()  # type: ignore[no-untyped-call]  # the package has no types
        if self.tokens is not None:
            for _ in range(min(self.tokens.rate_limit, math.ceil(size(chat) / self.share))):
                await self.tokens.acquire()  # type: ignore[no-untyped-call]


def size(chat: Chat) -> int:
    """Tokens that a provider would charge against a limit: the prompt, and the most it may be answered."""
    if chat.wanted_input is not None:
        return chat.wanted_input + chat.max_tokens
    texts = sum(message.tokens if message.text is None else len(message.text) for message in chat.context.messages)
    return round(texts / CHARACTERS_PER_TOKEN) + chat.max_tokens
