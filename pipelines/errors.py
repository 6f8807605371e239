"""The one error that stands for a user's mistake."""


class InputError(ValueError):
    """A user's mistake, told in one line: what was found, what was expected, where to change it.

    The command line prints the line and ends with status 2. It carries nothing but its message, so that it
    pickles and Ray can bring it home from a worker.
    """
