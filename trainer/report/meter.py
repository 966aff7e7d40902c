"""How fast a run goes: what was done since the last line of metrics.jsonl, and since the beginning."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was done between two lines of metrics.jsonl, on all ranks."""

    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of them in which this rank waited for its packs to be read."""

    @property
    def tokens_per_s(self) -> float | None:
        """Return the speed, or None when nothing was done."""
        return self.tokens / self.seconds if self.seconds else None


class Meter:
    """Adds up the work of steps: totals, which checkpoints keep, and a window, which every logged line ends."""

    def __init__(self, *, tokens: int = 0, supervised: int = 0, seconds: float = 0.0) -> None:
        self.tokens, self.supervised, self.seconds = tokens, supervised, seconds
        self._window = Window()

    def add(self, *, tokens: int, supervised: int, seconds: float, waited: float) -> None:
        """Count one step of all ranks."""
        self.tokens += tokens
        self.supervised += supervised
        self.seconds += seconds
        before = self._window
        self._window = Window(
            tokens=before.tokens + tokens, seconds=before.seconds + seconds, waited=before.waited + waited
        )

    def take(self) -> Window:
        """Return the window, and begin the next."""
        window, self._window = self._window, Window()
        return window
