"""The one error that stands for a user's mistake, and how other errors are quoted in it."""


class InputError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, where to change it.

    The command line prints the line and ends with status 2. It carries nothing but its message, so that it
    pickles and Ray can bring it home from a worker. A line break in it, which a file's name may hold, becomes a blank,
    and what Ray Data appends to `args` on the way is not shown.
    """

    def __init__(self, message: str) -> None:
        self._line = printable(message)
        super().__init__(self._line)

    def __str__(self) -> str:
        return self._line


def printable(text: str) -> str:
    """`text` in one line that any file and terminal takes: names of files may hold line ends and undecodable bytes."""
    return " ".join(text.splitlines()).encode("utf-8", "backslashreplace").decode("utf-8")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for messages of one line; the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
