"""Where the ranks of a torchrun find each other, also after it has started them again.

torchrun (2.8 to 2.13, at least) lends its ranks one store and does not empty it when it starts them anew, so that they find the
addresses of those that died and end at once, or wait for nobody. On one machine all ranks know how often they were started,
and a name of its own for each start is enough. On several machines they do not: there torchrun must make a new store each time.
"""

import os
from typing import Final

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from trainer.errors import Elsewhere, RestartsRefused

FRESH_STORE: Final = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Variable with which, if it is 1, torchrun makes a new store for each start."""


def store_of_this_start() -> Store | None:
    """Return the store in which the ranks of this start meet, or None for torch's own choice.

    Raises RestartsRefused, once per machine, where a restart could not work.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return None
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):
        _refuse()
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _refuse() -> None:
    if os.environ.get("LOCAL_RANK", "0") != "0":
        raise Elsewhere(RestartsRefused.exit_code)
    raise RestartsRefused(
        "torchrun --max-restarts on several machines would start ranks again that meet those that died; give "
        f"--rdzv-backend c10d, set {FRESH_STORE}=1 in the environment of torchrun on every machine, and start it again; or "
        "leave --max-restarts out"
    )
