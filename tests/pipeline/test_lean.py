"""Worker processes load what the stages use, and nothing else."""

import subprocess
import sys
from pathlib import Path

from tests.corpus import write_config, write_corpus

CODE = """
import sys
from pathlib import Path
from pipeline.lean import leave_out
leave_out()
from pipeline.config import load_config
from pipeline.run import build
built = build(load_config(Path(sys.argv[1])))
assert built.manifests["pack"].totals.kept > 0
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"pandas", "scipy", "awkward", "torch", "datasets"}))
"""


def test_all_stages_run_without_the_companions_that_libraries_look_for(tmp_path: Path):
    config = write_config(tmp_path, write_corpus(tmp_path / "a.jsonl", 40))
    done = subprocess.run([sys.executable, "-c", CODE, str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
