"""How fast a device can multiply matrices: by its data sheet, or measured."""

import time
from typing import Final

import torch

TERA: Final = 1e12
DATA_SHEETS: Final = {
    "B200": 2250.0,
    "GH200": 989.4,
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.4,
    "H800": 989.4,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L40": 181.05,
    "L4": 121.0,
    "RTX A6000": 154.8,
    "RTX 6000 Ada": 364.25,
    "RTX 5090": 209.5,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 products with float32 sums, in TFLOP/s, by a part of the device's name: NVIDIA's data sheets (without
sparsity), for RTX cards the appendices of the Ampere, Ada and Blackwell white papers."""
SIZE: Final = {"cuda": 8192, "cpu": 768}
"""Rows and columns of the matrices that are multiplied when no data sheet is at hand."""
SECONDS: Final = 0.05


def by_data_sheet(name: str) -> float | None:
    """Return the bfloat16 peak of the device called `name` in operations per second, or None if it is not listed."""
    words = name.replace("-", " ").split()
    found = [key for key in DATA_SHEETS if _is_within(key.split(), words)]
    return DATA_SHEETS[max(found, key=len)] * TERA if found else None


def _is_within(key: list[str], words: list[str]) -> bool:
    return any(words[i : i + len(key)] == key for i in range(len(words)))


def peak(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Return how many operations per second `device` can do in products of `dtype`, and how that is known."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        if (listed := by_data_sheet(name)) is not None:
            return listed, f"{name}'s data sheet"
    return measured(device, dtype), "a measured product of matrices"


def measured(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of the best of several products of square matrices; they take 0.05 s, or as one."""
    size = SIZE.get(device.type, 768)
    # a generator of its own: training draws from none. Constant matrices would be faster than real ones on a GPU
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.rand(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    torch.mm(left, right, out=out)  # the first one sets up the library
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS or best == float("inf"):
        _wait(device)
        before = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait(device)
        best = min(best, time.perf_counter() - before)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
