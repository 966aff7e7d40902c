"""Compile every kernel once, at installation, by a build too small to see; later processes load them from disk."""

import json
import tempfile
from pathlib import Path

from pipeline.check import check
from pipeline.config import load_config
from pipeline.run import build
from pipeline.source import Source, scan


def warm(config: Path) -> None:
    """Build a handful of conversations with `config` in a temporary directory, and compare their texts."""
    import stages.ingest.lane.columns  # noqa: F401 - so that so few lines are read by the kernels too

    with tempfile.TemporaryDirectory() as directory:
        lines = Path(directory) / "warm.jsonl"
        question = {"role": "user", "content": "What does a kernel need before it can run, 先生?"}
        answer = {"role": "assistant", "content": "It needs to be compiled once; after that it is loaded from disk."}
        record = json.dumps({"messages": [question, answer]})
        lines.write_text("\n".join([record] * 30), encoding="utf-8")
        noise = (
            "length.noise=[{max_symbols=0.99, max_repeated_lines=0.99}]"  # off by default, so nothing else compiles it
        )
        build(load_config(config, assignments=[noise], inputs=[str(lines)], run=f"{directory}/run"))
        record = json.dumps({"question": question["content"], "answer": answer["content"]})
        lines.write_text(f"{record}\n{record.replace('kernel', 'colonel')}\n", encoding="utf-8")
        check([str(lines)])
        array = Path(directory) / "warm.json"
        array.write_text(f"[{', '.join([record] * 3000)}]", encoding="utf-8")  # too large for the plain walk
        scan(str(array), Source(), Path(directory))


if __name__ == "__main__":
    print("compiling kernels, once ...", flush=True)  # noqa: T201
    warm(Path("configs/tiny.toml"))
