"""How fast a run goes: what was done since the last line of metrics.jsonl, and since the beginning."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.report.peak import peak


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was done between two lines of metrics.jsonl, on all ranks."""

    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of them in which this rank waited for its packs to be read."""
    flops: float = 0.0
    """Useful floating-point operations: see trainer.report.flops."""

    @property
    def tokens_per_s(self) -> float | None:
        """Return the speed, or None when nothing was done."""
        return self.tokens / self.seconds if self.seconds else None

    @property
    def data_share(self) -> float | None:
        """Return the share of the time in which this rank waited for data, or None when nothing was done."""
        return self.waited / self.seconds if self.seconds else None

    @property
    def supervised_share(self) -> float | None:
        """Return the share of the tokens that were trained, or None when nothing was done."""
        return self.supervised / self.tokens if self.tokens else None


class Meter:
    """Adds up the work of steps: totals, which checkpoints keep, and a window, which every logged line ends."""

    def __init__(
        self, *, tokens: int = 0, supervised: int = 0, seconds: float = 0.0, window: Window | None = None
    ) -> None:
        self.tokens, self.supervised, self.seconds = tokens, supervised, seconds
        self.window = window or Window()
        """What was done since the last line."""

    def add(self, *, tokens: int, supervised: int, seconds: float, waited: float, flops: float = 0.0) -> None:
        """Count one step of all ranks."""
        self.tokens += tokens
        self.supervised += supervised
        self.seconds += seconds
        before = self.window
        self.window = Window(
            tokens=before.tokens + tokens,
            supervised=before.supervised + supervised,
            seconds=before.seconds + seconds,
            waited=before.waited + waited,
            flops=before.flops + flops,
        )

    def take(self) -> Window:
        """Return the window, and begin the next."""
        window, self.window = self.window, Window()
        return window


class Yardstick:
    """What the device could do: its peak, found when it is first asked for, and the memory that training took."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, n_devices: int) -> None:
        self._device, self._dtype, self._n_devices = device, dtype, n_devices
        self._peak: tuple[float, str] | None = None

    @property
    def peak(self) -> tuple[float, str]:
        """Return the operations per second of one device, and how they are known; on a CPU measured in 0.05 s, once."""
        if self._peak is None:
            self._peak = peak(self._device, self._dtype)
        return self._peak

    def mfu(self, window: Window) -> float | None:
        """Return useful operations over those that all devices could have done meanwhile (PaLM, appendix B)."""
        if not window.seconds or not window.flops:
            return None
        return window.flops / window.seconds / (self.peak[0] * self._n_devices)

    def memory_bytes(self) -> int | None:
        """Return the most memory that was in use at once: of this rank's GPU by tensors, on a CPU by the whole process."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident()


def peak_resident() -> int | None:
    """Return the most memory that this process ever had in use, in bytes, or None where nobody counts it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if os.name != "posix":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
