"""The one way to say that the user's input cannot be used."""


class BadInput(Exception):  # noqa: N818  # it is the input that is bad, not the program
    """One line that names the value, the rule and the fix. The command prints it and ends with exit code 2."""


class Failed(Exception):  # noqa: N818  # it is the run that failed
    """One line that says what ended a run. The command prints it and ends with exit code 1."""
