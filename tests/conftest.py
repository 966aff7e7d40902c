"""Kernels of this code, not of an older one; set before anything imports numba."""

from pipeline.kernel_cache import use_kernel_cache

use_kernel_cache()
