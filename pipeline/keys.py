"""Content-addressed keys: two outputs with the same key have the same bytes, so a key is all that decides reuse."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from pipeline.graph import SOURCE, Stage
from pipeline.source import Source
from schemas.manifest import FORMAT

READER: Final = (
    "pipeline.source",
    *(f"pipeline.source.{path.stem}" for path in sorted(Path(__file__).with_name("source").glob("[!_]*.py"))),
)
"""What turns files into lines: part of the key of the stage that reads them."""
WRITER: Final = ("pipeline.halves", "pipeline.store")
"""What turns a stage's output into files: part of every key."""
_OURS: Final = ("stages", "schemas", "pipeline")
_LIBRARIES: Final = frozenset(
    {"polars", "pyarrow", "numpy", "numba", "msgspec", "jinja2", "tokenizers", "gigatoken", "datasketch"}
)


def digest(*parts: bytes | str) -> str:
    """Return the sha256 of `parts`, each framed by its length."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(b"%d:" % len(data))
        state.update(data)
    return state.hexdigest()


def stage_key(
    stage: Stage, configs: Mapping[str, msgspec.Struct], assets: Mapping[str, msgspec.Struct], source: Source
) -> str:
    """Return the key of everything that determines `stage` but its input.

    That is its code, the code that reads and writes for it, its settings and those of the sections that it takes as well, its
    schema, libraries, assets, and Python's version.
    A comment edited in a stage's code costs a rebuild of that stage: stale is worse than slow.
    """
    reads_lines = stage.reads[0] == SOURCE
    counting = (stage.report.__module__,) if stage.report else ()  # counts stand in the records, which keys vouch for
    code, libraries = closure((stage.run.__module__, *counting, *WRITER, *(READER if reads_lines else ())))
    own = msgspec.to_builtins(configs[stage.name])
    settings = {name: value for name, value in own.items() if name not in stage.neutral}
    settings |= {f"[{name}]": msgspec.to_builtins(configs[name]) for name in stage.also}
    if reads_lines:
        settings["source"] = [source.shard_bytes, source.max_line_bytes]
    return digest(
        str(FORMAT),
        "{}.{}".format(*sys.version_info),  # which also settles Unicode's tables
        stage.name,
        *(f"{name}={source}" for name, source in code),
        *(f"{name}=={version}" for name, version in libraries),
        msgspec.json.encode(settings, order="deterministic"),
        stage.writes.serialize().to_pybytes(),
        stage.evidence.serialize().to_pybytes(),
        *(f"{name}={asset_digest(assets[name])}" for name in stage.assets),
    )


def shard_key(key: str, reads: list[str]) -> str:
    """Return the key of one shard of a stage: the stage's, and the digests of what the shard reads."""
    return digest(key, *reads)


def asset_digest(asset: msgspec.Struct) -> str:
    """Return the digest of an asset's whole value."""
    return digest(msgspec.msgpack.encode(asset, order="deterministic"))


@functools.lru_cache(maxsize=32)
def closure(modules: tuple[str, ...]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Return ((module, sha256), ...) of `modules` and what they import of ours, and ((library, version), ...) they use.

    Imports are read off the syntax tree, those inside functions included. Of pipeline itself only what is named counts:
    where and when a stage runs does not change what it makes.
    """
    seen: dict[str, str] = {}
    libraries = {"pyarrow", "polars"}  # the writer and the frames themselves
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        path = _find(name)
        if path is None:
            continue
        source = path.read_bytes()
        seen[name] = digest(source)
        for imported in _imports(name, source, is_package=path.name == "__init__.py"):
            top = imported.partition(".")[0]
            if top in _OURS and top != "pipeline":
                waiting.append(imported)
            elif top in _LIBRARIES:
                libraries.add(top)
    versions = {name: _version(name) for name in libraries}
    return tuple(sorted(seen.items())), tuple(sorted(versions.items()))


@functools.cache
def _version(library: str) -> str:
    return importlib.metadata.version(library)


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield every statement, at any depth: an import is one, and most of a tree are expressions."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            children = getattr(node, block, ())
            if isinstance(children, list):  # not the expression that is the body of a lambda
                yield from (child for child in children if isinstance(child, ast.stmt))
                waiting += children


@functools.lru_cache(maxsize=512)
def _imports(name: str, source: bytes, *, is_package: bool) -> tuple[str, ...]:
    found: list[str] = []
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") if is_package else name.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            # `from package import module` and `from module import name` look the same: what is no module is not found.
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)


@functools.cache
def _find(name: str) -> Path | None:
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]).joinpath(*rest)
    if path.is_dir() and (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None
