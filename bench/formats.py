"""Say what becomes of published files: of each its shapes, records, conversations, repairs, and what is quarantined and why.

    python -m bench.formats FILE_OR_DIRECTORY ... > table.md

Each file is ingested by itself, as a build does it, with the settings' defaults; the table is the one in docs/formats.md.
"""

import argparse
import tempfile
from pathlib import Path

from pipeline.config import load_config
from pipeline.run import build
from pipeline.source import expand
from schemas.manifest import Totals


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", help="files, directories or globs")
    options = parser.parse_args()
    print("| file | shape | records | kept | repaired | quarantined |\n|---|---|--:|--:|---|---|")
    for path in expand(options.inputs)[0]:
        print(_row(Path(path).name, _totals(path)))


def _totals(path: str) -> Totals:
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "config.toml")
        config.write_text("")
        built = build(load_config(config, inputs=[path], run=str(Path(home, "run"))), until="ingest")
    return built.manifests["ingest"].totals


def _row(name: str, totals: Totals) -> str:
    shapes = _named(totals.counts, "shape/") or "-"
    repaired = _named(totals.counts, "repaired/", is_counted=True) or "-"
    quarantined = ", ".join(f"{reason} {n:,}" for reason, n in sorted(totals.dropped.items())) or "-"
    return f"| `{name}` | {shapes} | {totals.counts['records']:,} | {totals.kept:,} | {repaired} | {quarantined} |"


def _named(counts: dict[str, int], prefix: str, *, is_counted: bool = False) -> str:
    found = {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return ", ".join(f"{name} {n:,}" if is_counted or len(found) > 1 else name for name, n in sorted(found.items()))


if __name__ == "__main__":
    main()
