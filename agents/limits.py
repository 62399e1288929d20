"""What is read of an endpoint's answer at most, whatever it sends. docs/limits.md says what becomes of the rest."""

MAX_HEADERS = 256 * 1024
"""Bytes that are read before the headers end, and in a row without any content after that."""

MAX_BODY = 64 * 1024 * 1024
"""Bytes of an answer that are read, unpacked, streamed or not."""

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Bytes of one event of a stream."""

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error's body that are read."""

MAX_ERROR = 300
"""Characters of an error that are kept."""

MAX_NAME = 256
"""Characters of a tool's name that are kept: APIs allow 64."""

MAX_REASON = 64
"""Characters of a finish reason that are kept."""

MAX_TOOL_CALLS = 1_000
"""Tool calls of one answer."""

MAX_TOKENS = 10**9
"""A usage figure beyond this is nonsense, and so is the usage it stands in."""

MAX_RETRY_AFTER = 86_400.0
"""Seconds that an endpoint can make us wait."""
