"""Who wrote a stretch of a rendered conversation."""

from enum import StrEnum
from typing import Final


class SpanClass(StrEnum):
    """Class of a span. The first four are a message's own text, and tools the schemas'; the rest is written by the template."""

    CONTENT = "content"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    STOP = "stop"  # the token on which an assistant's turn ends
    GENERATION_PROMPT = (
        "generation_prompt"  # what the template writes to let the assistant speak; given, never produced
    )
    SCAFFOLD = "scaffold"  # template text inside an assistant's turn, which the model must write: think tags, brackets
    TOOLS = "tools"  # tool schemas, which come with the conversation
    TEMPLATE = "template"  # everything else: headers, separators, system defaults


FROM_DATA: Final = (
    SpanClass.CONTENT,
    SpanClass.REASONING,
    SpanClass.TOOL_CALL,
    SpanClass.TOOL_RESULT,
    SpanClass.TOOLS,
)
