"""What a template is like, found by rendering a small conversation rather than by reading its Jinja."""

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from jinja2.meta import find_undeclared_variables

from schemas.assets import Template
from stages.render.inputs import Message, Shape
from stages.render.regions import Boundaries
from stages.render.renderer import FAILURES, Renderer, describe, renderer
from stages.render.settings import Render, RenderError
from stages.render.traced import CONTENT, TOOL_CALL, origin, spans_of, traced

QUESTION: Final = Message("user", "Alpha question")
ANSWER: Final = Message("assistant", "Bravo answer")
CALL: Final = Message(
    "assistant",
    None,
    None,
    '[{"id": "call12345", "type": "function",'
    ' "function": {"name": "lookup", "arguments": "{\\"key\\": \\"Delta\\"}"}}]',
)
CALLS: Final = CALL._replace(tool_calls=f"[{str(CALL.tool_calls)[1:-1]}, {str(CALL.tool_calls)[1:-1]}]")
RESULT: Final = Message("tool", "Charlie result", None, None, "call12345", "lookup")
SYSTEM: Final = Message("system", "Echo system")
ARGUMENTS: Final[tuple[Literal["text", "object"], ...]] = ("text", "object")


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the stage, and whoever serves the model, must know about a template."""

    generation_prompt: str
    """What the template appends when it is asked to let the assistant speak; may be empty."""
    stops: tuple[str, ...]
    """Texts that end an assistant's turn, the one found in the template first; empty when it writes none."""
    boundaries: Boundaries
    shape: Shape


def probe(template: Template, config: Render) -> Probe:
    """Render small conversations to find generation prompt, stop and the form of tool calls.

    Raises RenderError for a template that refuses the simplest conversation, or rewrites what the assistant says so
    that it cannot be told from the template's own text.
    """
    return _probe(renderer(template, config), template, config)


def _probe(compiled: Renderer, template: Template, config: Render) -> Probe:
    prefix, full = _whole(compiled, config)
    answered = [span for span in spans_of(full) if span[2] >> 2 == len(prefix)]
    if not answered:
        line = compiled.line_that_looks([message.role for message in (*prefix, ANSWER)], config)
        unknown = ", ".join(() if line else _undefined(compiled, template))
        raise RenderError(
            f"template {compiled.name}{f', line {line}' if line else ''}: the assistant's text {ANSWER.content!r} cannot be"
            f" followed into {str(full)!r}; the template {'rewrites' if line else 'drops'} it, so nothing of it could be"
            f" trained: {f'it reads {unknown}, which nothing defines; correct that, or ' if unknown else ''}choose another"
            " template"
        )
    first = answered[0][0]
    middle = full[max([end for _, end, _ in spans_of(full) if end <= first], default=0) : first]
    asked = _after_last(_try(compiled, prefix, config, generation_prompt=True))
    bare = _try(compiled, prefix, config)
    # some templates close a conversation that nobody asks to go on; what differs from there is the prompt
    close = _shared(_after_last(bare), asked, template) if bare else asked
    prompt = asked[len(close) :]
    header = _shared(prompt, middle.removeprefix(close), template)
    after_user = close + header if middle.startswith(close + header) else ""
    shape = _shape(compiled, prefix, config)
    resulted = _after_last(_try(compiled, [*prefix, CALL, RESULT], config, shape=shape, generation_prompt=True))
    stops = config.stop or _stops(compiled, prefix, close, template, config, shape)
    return Probe(
        generation_prompt=str(prompt),
        stops=stops,
        boundaries=Boundaries(
            header=header,
            after_user=after_user,
            after_tool=resulted.removesuffix(prompt) + header if resulted.endswith(prompt) else resulted,
            lead=middle[len(after_user) :],
            stops=stops,
        ),
        shape=shape,
    )


def _undefined(compiled: Renderer, template: Template) -> list[str]:
    """Return the names that a template reads and neither sets nor is given; most templates ask for some that may be given."""
    given = {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        *compiled.variables,
        *compiled.environment.globals,
    }
    return sorted(find_undeclared_variables(compiled.environment.parse(template.source)) - given)


def _whole(compiled: Renderer, config: Render) -> tuple[list[Message], str]:
    """Render the simplest conversation that the template accepts; return what came before the answer, and the text."""
    try:
        return [QUESTION], _text(compiled, [QUESTION, ANSWER], config)
    except FAILURES as refused:
        prefix = [SYSTEM, QUESTION]
        full = _try(compiled, [*prefix, ANSWER], config)
        if not full:
            line = compiled.line_of(refused)
            raise RenderError(
                f"template {compiled.name}{f', line {line}' if line else ''}: it refuses a conversation of one question and"
                f" one answer: {describe(refused)}; choose another template"
            ) from refused
        return prefix, full


def _text(
    compiled: Renderer,
    messages: Sequence[Message],
    config: Render,
    *,
    shape: Shape = Shape(),  # noqa: B008  # an immutable tuple
    generation_prompt: bool = False,
) -> str:
    return traced(*compiled.render(messages, config, n_chars=1000, shape=shape, generation_prompt=generation_prompt))


def _try(
    compiled: Renderer,
    messages: Sequence[Message],
    config: Render,
    *,
    shape: Shape = Shape(),  # noqa: B008  # an immutable tuple
    generation_prompt: bool = False,
) -> str:
    """Return the text, or none at all where the template refuses."""
    try:
        return _text(compiled, messages, config, shape=shape, generation_prompt=generation_prompt)
    except FAILURES:
        return ""


def _after_last(text: str) -> str:
    """Return the template's own text behind the last character that a message wrote."""
    spans = spans_of(text)
    return text[spans[-1][1] :] if spans else ""


def _shared(prompt: str, following: str, template: Template) -> str:
    """Return `prompt` if `following` begins with it, else what both begin with, cut where a token or a line ends.

    Some prompts go on beyond the header (an opening think tag) with what a recorded answer need not begin with.
    """
    if following.startswith(prompt):
        return str(prompt)
    length = next(at for at in range(len(prompt) + 1) if not following.startswith(prompt[: at + 1]))
    ends = [at for token in (*template.control_tokens, "\n") for at in _ends(token, prompt) if at <= length]
    return prompt[: max(ends, default=0)]


def _ends(token: str, text: str) -> list[int]:
    return [match.end() for match in re.finditer(re.escape(token), text)] if token else []


def _shape(compiled: Renderer, prefix: list[Message], config: Render) -> Shape:
    """Return the first form of a tool call that the template writes whole, and not as JSON inside a JSON string."""
    for absent in ("", None):
        for arguments in ARGUMENTS:
            shape = Shape(arguments, absent)
            text = _try(compiled, [*prefix, CALL, RESULT, ANSWER], config, shape=shape)
            called = origin(len(prefix), TOOL_CALL)
            if any(who == called for _, _, who in spans_of(text)) and '\\"key\\"' not in text:
                return shape
    return Shape()


def _stops(
    compiled: Renderer, prefix: list[Message], close: str, template: Template, config: Render, shape: Shape
) -> tuple[str, ...]:
    """Return the control tokens that end a turn: of the last turn, and where they differ of an earlier one and of a call.

    Behind an earlier turn the first control token may already open the next; it counts only if it also closes a user's.
    What closes a conversation that ends with a call may belong to the call; it counts only if none stands between two.
    """
    tokens = (*template.control_tokens, template.variables.get("eos_token", ""))
    texts = [_try(compiled, [*prefix, ANSWER], config), _try(compiled, [*prefix, ANSWER, QUESTION, ANSWER], config)]
    last = _last(tokens, _after_last(texts[0]), template.variables.get("eos_token"))
    ends = [end for _, end, who in spans_of(texts[1]) if who == origin(len(prefix), CONTENT)]
    earlier = _first(tokens, texts[1][ends[-1] :]) if ends else None
    stops = [last] if last else []
    if last and earlier and earlier != last and earlier in close:
        stops.append(earlier)
    called = _stop_of_call(compiled, prefix, tokens, config, shape)
    return (*stops, called) if stops and called and called not in stops else tuple(stops)


def _stop_of_call(
    compiled: Renderer, prefix: list[Message], tokens: Sequence[str], config: Render, shape: Shape
) -> str | None:
    """Return the last control token of a conversation that ends with a call."""
    closing = _after_last(_try(compiled, [*prefix, CALL], config, shape=shape))
    found = [(closing.rindex(token), len(token), token) for token in tokens if token and token in closing]
    if not found:
        return None
    token = max(found)[2]
    two = _try(compiled, [*prefix, CALLS], config, shape=shape)
    called = [span for span in spans_of(two) if span[2] == origin(len(prefix), TOOL_CALL)]
    return None if not called or token in two[called[0][0] : called[-1][1]] else token


def _last(tokens: Sequence[str], text: str, eos: str | None) -> str | None:
    """Return the token that stands first in `text`, or eos_token where nothing but other tokens stand between."""
    first = _first(tokens, text)
    if not first or not eos or eos not in text:
        return first
    between = text[text.index(first) : text.index(eos)]
    for token in sorted(filter(None, tokens), key=len, reverse=True):
        between = between.replace(token, "")
    return first if between else eos


def _first(tokens: Sequence[str], text: str) -> str | None:
    """Return the token that stands first in `text`, the longest of those at the same place."""
    found = [(text.index(token), -len(token), token) for token in tokens if token and token in text]
    return min(found)[2] if found else None
