"""The standard output of commands that only show something."""

from rich.console import Console


class Page(Console):
    """A console whose reader may leave: `chatloom look ... | head` has got what it wanted, which is no failure."""

    def on_broken_pipe(self) -> None:
        """Hand on the BrokenPipeError, which rich would make exit code 1 of."""
        raise BrokenPipeError
