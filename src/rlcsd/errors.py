"""The one exception for anything wrong with what the user gave."""


class InputError(ValueError):
    """One clear sentence: the field, its value, and what would be right. The CLI exits with code 2."""


class MissingError(InputError):
    """Something that a run needs is not on this machine yet; the sentence says how to get it."""


def first_line(error: Exception) -> str:
    """What an error of a library says first, or its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
