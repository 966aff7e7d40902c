"""Documentation that cannot go stale: settings, columns and metrics, read off the types that define them.

`python -m pipeline.describe` writes schemas/config.schema.json, docs/configuration.md, docs/columns.md and docs/metrics.md
anew; a test holds them to the code.
"""

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pipeline.config import SECTIONS
from pipeline.graph import GRAPH
from schemas.metrics import Metrics
from schemas.reasons import EXPLANATIONS
from schemas.tables import dropped_schema


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


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    _, components = msgspec.json.schema_components(SECTIONS.values(), ref_template="#/$defs/{name}")
    for kind in SECTIONS.values():
        definition = components[kind.__name__]
        definition["description"] = inspect.getdoc(kind)
        definition["additionalProperties"] = False
        for name, doc in field_docs(kind).items():
            definition["properties"][name]["description"] = doc
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
    for name, kind in SECTIONS.items():
        docs, defaults = field_docs(kind), kind()
        lines += [f"## [{name}]", "", inspect.getdoc(kind) or "", "", "| key | default | meaning |", "|---|---|---|"]
        for field in kind.__struct_fields__:
            default = json.dumps(msgspec.to_builtins(getattr(defaults, field))).replace("null", "not set")
            lines.append(f"| `{field}` | `{default}` | {docs.get(field, '').replace('|', '&#124;')} |")
        lines.append("")
    return "\n".join(lines)


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


def documents() -> dict[str, str]:
    """Return path to content of every generated file."""
    return {
        "schemas/config.schema.json": json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n",
        "docs/configuration.md": config_markdown(),
        "docs/columns.md": columns_markdown(),
        "docs/metrics.md": metrics_markdown(),
    }


if __name__ == "__main__":
    for name, text in documents().items():
        Path(name).write_text(text, encoding="utf-8")
