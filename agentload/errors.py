"""The one way to say that the user's input cannot be used, and what was meant instead."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):  # noqa: N818  # it is the input that is bad, not the program
    """One line that names the value, the rule and the fix. The command prints it and ends with exit code 2."""


class Failed(Exception):  # noqa: N818  # it is the run that failed
    """One line that says what ended a run. The command prints it and ends with exit code 1."""


MANY = 24
"""Names beyond which a list of them helps nobody."""


def meant(name: str, known: Iterable[str]) -> str:
    """The end of a complaint about a name: the nearest valid one, or all of them where they are few."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; it can be {', '.join(names)}" if 0 < len(names) <= MANY else ""
