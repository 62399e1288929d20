"""What is printed: results to stdout, all else to stderr, nothing that a terminal would obey.

Names and errors come from servers and from files of others. An escape sequence in one could clear the screen, set the
clipboard or write what looks like our own words, so control characters are shown as what they are.
"""

import sys

CONTROLS = {
    *range(0x20), *range(0x7F, 0xA0), *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF
}  # fmt: skip
"""ASCII's and Latin-1's control characters, and those that turn the direction of text around or take no room."""

SHOWN = {code: chr(code).encode("unicode_escape").decode() for code in CONTROLS if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """The text with control characters (line ends and tabs apart) as escapes that are read, and no halves of pairs."""
    return text.translate(SHOWN).encode("utf-8", "backslashreplace").decode()


def say(text: object, end: str = "\n") -> None:
    """A result."""
    print(harmless(str(text)), end=end)  # noqa: T201  # the one place


def note(text: object, end: str = "\n") -> None:
    """Something beside it."""
    print(harmless(str(text)), end=end, file=sys.stderr, flush=True)  # noqa: T201  # the one place


def warn(text: object) -> None:
    """One line that people should know, or that says what is wrong."""
    note(f"agentload: {' '.join(str(text).splitlines())}")
