"""When a training is to stop: by a signal, or because nobody is left who could send one."""

import os
import signal
import subprocess
import sys
import textwrap

from trainer.signals import Stop, catching

GUARDED = """
import subprocess, sys, textwrap
subprocess.Popen([sys.executable, "-c", textwrap.dedent('''
    import os, time
    from trainer.signals import catching
    with catching(may_insist=False, parent=os.getppid()) as stop:
        print("alone" if stop else "up", flush=True)
        while not stop:
            time.sleep(0.01)
        print("stopped", stop.signal, flush=True)
''')])
input()
"""


def test_a_signal_is_a_wish_and_the_process_before_it_is_none() -> None:
    assert not Stop()
    assert not Stop(parent=os.getppid())
    assert Stop(parent=os.getppid() + 1)
    with catching(may_insist=True) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.signal == signal.SIGTERM


def test_a_process_whose_parent_is_killed_stops_by_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(GUARDED)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parent.kill()
        assert parent.stdout.readline() == "stopped None\n"
