"""The commands behind the Makefile's targets."""


class Failure(Exception):
    """An error that the user can fix. Its message names the fault and, if it can, the remedy."""
