"""`python -m trainer`."""

import os
import sys

from trainer.entry import main

# Before torch is imported, which reads it then. Threads that sleep while they wait cost up to a fifth of the speed on
# an idle CPU, but where other work shares the cores, threads that spin were ten times slower (5,400 against 500 tok/s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Each new size of a batch adds kernels to oneDNN's cache, which keeps 1,024 of them: after 120 steps of the quick start 176 MB
# more than with 64, which hold those of a step. Its CPU time was the same (16.3 and 16.6 s).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

sys.exit(main())
