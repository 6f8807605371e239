"""The one error that stands for a user's mistake, and how other errors are quoted in it."""


class InputError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, where to change it.

    The command line prints the line and ends with status 2. It carries nothing but its message, so that it
    pickles and Ray can bring it home from a worker.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for messages of one line; the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
