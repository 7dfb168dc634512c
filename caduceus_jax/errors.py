"""The one exception that speaks to the person at the keyboard."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and the way out.

    The command line prints the message as one sentence and exits with status 2; code that calls
    the library can catch it as a `ValueError`.

    Attributes:
        exit_status: of the command line, where a scheduler is to tell this error from others.
    """

    exit_status = 2
