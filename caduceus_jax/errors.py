"""The exception for mistakes in what the user gave."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and how to fix it.

    The command line prints the message as one sentence and exits with status 2; code that calls
    the library can catch it as a `ValueError`. Messages name arguments, in backticks where they
    could be mistaken for words; the command line rewrites them as options.

    Attributes:
        exit_status: the exit status of the command line; subclasses set another one for errors
            that a scheduler has to tell from others.
    """

    exit_status = 2
