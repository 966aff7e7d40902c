"""Documentation that cannot go stale: settings, columns and metrics, read off the types that define them.

`python -m pipeline.describe` writes schemas/config.schema.json, docs/configuration.md, docs/columns.md, docs/metrics.md
and docs/shapes.md anew; a test holds them to the code.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import polars as pl
import pyarrow as pa

from pipeline.config import SECTIONS
from pipeline.graph import GRAPH
from schemas.metrics import Metrics
from schemas.reasons import EXPLANATIONS
from schemas.tables import LINES, dropped_schema
from stages.ingest import Ingest, ingest_lines
from stages.ingest.shapes import SHAPES, Shape


def field_docs(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring under each field of a struct."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            value = ast.literal_eval(text.value) if isinstance(text.value, ast.Constant) else None
            if isinstance(value, str):
                docs[field.target.id] = " ".join(value.split())
    return docs


def nested() -> dict[type[msgspec.Struct], list[tuple[str, bool]]]:
    """Return each struct that stands inside a section: [(its path, e.g. "source.sets", whether it is a list of tables), ...]."""
    places: dict[type[msgspec.Struct], list[tuple[str, bool]]] = {}
    for name, kind in SECTIONS.items():
        _find_nested(kind, name, places)
    return places


def _find_nested(
    kind: type[msgspec.Struct], path: str, places: dict[type[msgspec.Struct], list[tuple[str, bool]]]
) -> None:
    for name, annotation in get_type_hints(kind).items():
        for inner, is_list in _structs_in(annotation):
            places.setdefault(inner, []).append((f"{path}.{name}", is_list))
            _find_nested(inner, f"{path}.{name}", places)


def _structs_in(annotation: Any, *, is_list: bool = False) -> Iterator[tuple[type[msgspec.Struct], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation, is_list
    for inner in get_args(annotation):
        yield from _structs_in(inner, is_list=is_list or get_origin(annotation) in (tuple, list))


def setting_docs(kind: type[msgspec.Struct], section: str) -> dict[str, str]:
    """Return what each field means; a field of a struct inside `section` that only repeats one of the section says so."""
    outer = SECTIONS[section].__struct_fields__
    same = {name: f"As in [{section}], in its place." for name in kind.__struct_fields__ if name in outer}
    return same | field_docs(kind)


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    _, components = msgspec.json.schema_components(SECTIONS.values(), ref_template="#/$defs/{name}")
    sections = {kind: name for name, kind in SECTIONS.items()}
    for kind, section in (sections | {kind: _section(places) for kind, places in nested().items()}).items():
        definition = components[kind.__name__]
        definition["description"] = inspect.getdoc(kind)
        definition["additionalProperties"] = False
        docs = setting_docs(kind, section)
        for field in msgspec.structs.fields(kind):
            if field.name in docs:
                definition["properties"][field.encode_name]["description"] = docs[field.name]
    properties: dict[str, Any] = {
        "run": {"type": "string", "description": "The run directory."},
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": "Seed of every random choice."},
    }
    properties |= {name: {"$ref": f"#/$defs/{kind.__name__}"} for name, kind in SECTIONS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Chatloom config",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": components,
    }


def config_markdown() -> str:
    """Return the page of all settings."""
    lines = [
        "# Settings",
        "",
        "A config is a TOML file that states what differs from the defaults below; an unknown key is an error that names the",
        "nearest one. `--set section.key=value` changes one setting on the command line. The run directory's `config.toml` shows",
        "every value in use. At the top level stand `run`, the run directory, and `seed`.",
        "",
    ]
    inside = nested()
    for name, kind in SECTIONS.items():
        lines += [f"## [{name}]", "", *_table(kind, name)]
        for inner, places in inside.items():
            if _section(places) == name:
                headings = dict.fromkeys(f"[[{path}]]" if is_list else f"[{path}]" for path, is_list in places)
                lines += [f"### {', '.join(headings)}", "", *_table(inner, name)]
    return "\n".join(lines)


def _section(places: list[tuple[str, bool]]) -> str:
    """Return the section under which a struct is described: where it is least deep."""
    path, _ = min(places, key=lambda place: place[0].count("."))
    return path.partition(".")[0]


def _table(kind: type[msgspec.Struct], section: str) -> list[str]:
    docs = setting_docs(kind, section)
    lines = [inspect.getdoc(kind) or "", "", "| key | default | meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        doc = docs.get(field.name, "").replace("|", "&#124;")
        lines.append(f"| `{field.encode_name}` | {_default(field)} | {doc} |")
    return [*lines, ""]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{json.dumps(msgspec.to_builtins(value)).replace('null', 'not set')}`"


def metrics_markdown() -> str:
    """Return the page of what a line of metrics.jsonl has."""
    lines = [
        "# Metrics",
        "",
        "What each line of `RUN/train/metrics.jsonl` has: one JSON object for every step that was logged or evaluated. Step 0 is",
        "the model before training. What was not measured at a step is `null`. A run that resumes cuts the file back to its",
        "checkpoint, so that no step stands in it twice.",
        "",
        "| field | type | meaning |",
        "|---|---|---|",
    ]
    docs, kinds = field_docs(Metrics), inspect.get_annotations(Metrics)
    for field in Metrics.__struct_fields__:
        kind = getattr(kinds[field], "__name__", str(kinds[field])).replace("|", "or").replace("None", "null")
        lines.append(f"| `{field}` | {kind} | {docs[field].replace('|', '&#124;')} |")
    return "\n".join([*lines, ""])


def columns_markdown() -> str:
    """Return the page of all stages' columns, and of the drop reasons."""
    lines = [
        "# Columns",
        "",
        "What each stage writes to `kept/`; rows in `dropped/` have the columns below the line, too.",
        "",
    ]
    for stage in GRAPH:
        reads = ", ".join(stage.reads)
        lines += [
            f"## {stage.name}",
            "",
            f"Reads {reads}.",
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        extra = [c for c in dropped_schema(stage.writes, stage.evidence) if c.name not in stage.writes.names]
        lines += [column_row(column) for column in stage.writes]
        lines += [column_row(column, mark=" (dropped)") for column in extra]
        lines.append("")
    lines += ["## Drop reasons", "", "| reason | meaning |", "|---|---|"]
    lines += [f"| `{reason}` | {text} |" for reason, text in EXPLANATIONS.items()]
    return "\n".join([*lines, ""])


def column_row(column: pa.Field, mark: str = "") -> str:
    """Return one row of a table of columns."""
    metadata = column.metadata or {}
    doc, unit = metadata.get(b"doc", b"").decode(), metadata.get(b"unit", b"").decode()
    return f"| `{column.name}`{mark} | {_kind(column.type)} | {unit} | {doc} |"


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "struct of " + ", ".join(f"{child.name} ({_kind(child.type)})" for child in kind)
    return str(kind)


def shapes_markdown() -> str:
    """Return the page of all shapes of records."""
    lines = [
        "# Shapes of records",
        "",
        "Each record is recognised by its own keys: the first of these shapes whose rule holds reads it, and the row says",
        "which (column `shape`; `chatloom funnel` counts them). `[ingest] shape`, or `shape` of one of `[[source.sets]]`, states",
        "the shape instead; a mapping (`[ingest.mapping]`, `[source.sets.mapping]`) reads what has none of them. What holds for",
        "every shape (roles, tools, weights, systems, policies, what is refused) stands in [formats.md](formats.md).",
        "",
    ]
    for number, shape in enumerate(SHAPES.values(), 1):
        lines += [f"## {number}. {shape.name}", ""]
        lines += [f"Recognised by {shape.rule}.", ""]
        lines += [f"Used by {shape.used_by}.", ""] if shape.used_by else []
        lines += ["```json", shape.example, "```", "", "becomes", "", "```", *_becomes(shape), "```", ""]
    return "\n".join(lines)


def _becomes(shape: Shape) -> Iterator[str]:
    """Yield what ingest makes of a shape's example, a line for each message."""
    value = {"source": "file", "line": 1, "offset": 0, "raw": shape.example.encode(), "skip": None, "rules": None}
    frame = pl.from_arrow(pa.Table.from_pylist([value], schema=LINES))
    assert isinstance(frame, pl.DataFrame)
    for row in ingest_lines(frame, Ingest(shape=shape.name)).iter_rows(named=True):  # type: ignore[arg-type]
        if row["drop_reason"]:
            yield f"{row['id']}  quarantined, {row['drop_reason']}: {row['detail']}"
        for said in row["messages"] or ():
            parts = {name: text for name, text in said.items() if name != "role" and text is not None}
            told = [json.dumps(parts.pop("content"), ensure_ascii=False)] if "content" in parts else []
            told += [f"{name} {json.dumps(text, ensure_ascii=False)}" for name, text in parts.items()]
            yield f"{row['id']}  {said['role']}: {', '.join(told)}"


def documents() -> dict[str, str]:
    """Return path to content of every generated file."""
    return {
        "schemas/config.schema.json": json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n",
        "docs/configuration.md": config_markdown(),
        "docs/columns.md": columns_markdown(),
        "docs/metrics.md": metrics_markdown(),
        "docs/shapes.md": shapes_markdown(),
    }


if __name__ == "__main__":
    for name, text in documents().items():
        Path(name).write_text(text, encoding="utf-8")
