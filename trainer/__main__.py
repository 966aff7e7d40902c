"""`python -m trainer`."""

import os
import sys

from trainer.entry import main

# Before torch is imported, which reads it then. Threads that sleep while they wait cost up to a fifth of the speed on
# an idle CPU, but where other work shares the cores, threads that spin were ten times slower (5,400 against 500 tok/s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.exit(main())
