"""Errors that a user can mend, as opposed to defects of the code."""


class GateError(ValueError):
    """The build stops, because going on would break a promise; the text names rows and says what to do."""
