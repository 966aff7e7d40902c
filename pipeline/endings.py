"""How a chat template ends a turn: for those who serve the model, and for errors of stages that see no template."""

from collections.abc import Mapping
from typing import Any

from schemas.assets import Template
from stages.render import Render, for_tools, probe


def turn_stops(template: Template, config: Render) -> tuple[str, ...]:
    """Return the texts that end a turn of the assistant, in conversations without tools and then with them."""
    return tuple(dict.fromkeys((*probe(template, config).stops, *probe(for_tools(template), config).stops)))


def turn_endings(configs: Mapping[str, Any], assets: Mapping[str, Any]) -> str:
    """Return a sentence that names the template and the texts with which it ends a turn of the assistant."""
    template = assets["template"]
    stops = turn_stops(template, configs["render"])
    if not stops:
        return f"Template {template.name} ends no turn with a special token of the tokenizer"
    return f"Template {template.name} ends a turn with {' or '.join(map(repr, stops))}"
