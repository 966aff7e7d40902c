"""Our masks against those of TRL, which ships training twins of chat templates with `{% generation %}` blocks by hand.

Each stock template is rendered by us and its twin by transformers; the characters that either trains are compared. What
differs is stated here, turn by turn and to the character, and explained in DECISIONS.md.
"""

import importlib.util
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from schemas.assets import Template
from stages.render import Render, RenderError, probe, render_conversations
from stages.render.inputs import Message, Shape, build
from tests.stages.test_render import frame

FOUND = importlib.util.find_spec("trl")
pytestmark = pytest.mark.skipif(FOUND is None, reason="TRL is not installed")
HOME = Path(str(FOUND.origin)).parent / "chat_templates" if FOUND else Path()

Chat = list[dict[str, Any]]
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Look up the weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "Name"}},
                    "required": ["city"],
                },
            },
        }
    ]
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, *cities: str, reasoning: str | None = None) -> dict[str, Any]:
    calls = [
        {
            "id": f"call0000{number}",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city})},
        }
        for number, city in enumerate(cities)
    ]
    return {
        "role": "assistant",
        "content": text,
        "reasoning": reasoning,
        "tool_calls": json.dumps(calls) if calls else None,
    }


def result(text: str, number: int = 0) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": f"call0000{number}", "name": "weather"}


CHATS: dict[str, Chat] = {
    "single": [user("What is 2+2?"), assistant("It is 4.")],
    "multi": [user("Hi there"), assistant("Hello!\nHow can I help?"), user("Name a river"), assistant("The Nile.")],
    "system": [
        {"role": "system", "content": "Be brief."},
        user("Hi"),
        assistant("Hello."),
        user("Bye"),
        assistant("See you."),
    ],
    "call": [user("Weather in Oslo?"), assistant(None, "Oslo"), result("4 degrees"), assistant("It is 4 degrees.")],
    "calls": [
        user("Oslo and Rome?"),
        assistant("Let me look.", "Oslo", "Rome"),
        result("4"),
        result("20", 1),
        assistant("4 and 20."),
    ],
    "reasoning": [
        user("2+2?"),
        assistant("4", reasoning="Two and two."),
        user("3+3?"),
        assistant("6", reasoning="Three and three."),
    ],
    "reasoned call": [
        user("Weather in Oslo?"),
        assistant(None, "Oslo", reasoning="I must look."),
        result("4 degrees"),
        assistant("It is 4 degrees.", reasoning="The tool says 4."),
    ],
}
WITH_TOOLS = ("call", "calls", "reasoned call")

Difference = tuple[str, str]
"""("before" or "after" a turn as we train it, what the twin trains besides); ("not ours", a turn that we do not train);
("only ours", what we alone train)."""


class Pair(NamedTuple):
    """What is known of a stock template and of its twin."""

    tokens: tuple[str, ...]
    """The tokenizer's control tokens that concern us; the last one is its eos_token."""
    each: tuple[Difference, ...] = ()
    """What the twin trains differently at every turn."""
    special: dict[str, list[Difference]] = {}  # noqa: RUF012  # never changed
    """Conversations of which that is not true, and what is."""
    refused: tuple[str, ...] = ()
    """Conversations that both templates refuse."""
    rewritten: tuple[str, ...] = ()
    """Conversations of which the twin makes another text than the stock template; compared on the twin's."""
    arguments: str = ""
    """The form of tool arguments that the twin takes, where it is not that of the stock template."""


LINE = (("after", "\n"),)
IM = ("<|im_start|>", "<|im_end|>")
TURN = ("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>")
DEEPSEEK = (
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜end▁of▁sentence｜>",
)
ASKED = ("before", "<｜Assistant｜>")
ANSWERED = ("before", "<｜tool▁outputs▁end｜>")
THINK, NO_THINK = ("before", "<think>\n"), ("before", "<think>\n\n</think>\n\n")
HISTORY = ("multi", "system", "reasoning")
EMPTY_TURN: list[Difference] = [("not ours", "<|im_end|>\n"), *LINE]
PHI: list[Difference] = [("after", "\n<|endoftext|>")]
PHI_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
PHI_SPECIAL = {
    "single": PHI,
    **{key: [*LINE, *PHI] for key in ("multi", "system", "calls", "reasoning")},
    **{key: [("not ours", "<|end|>\n"), *PHI] for key in ("call", "reasoned call")},
}
STARTED = (("before", "<|start|>assistant"),)

PAIRS: dict[str, Pair] = {
    "cohere": Pair(
        ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        refused=WITH_TOOLS,
    ),
    "deepseek_r1_distill": Pair(
        DEEPSEEK,
        (ASKED,),
        {
            "call": [ASKED, ("after", "\n```<｜tool▁call▁end｜>"), ANSWERED],
            "calls": [ASKED, ANSWERED],
            "reasoned call": [ASKED, ("after", "\n```<｜tool▁call▁end｜>"), ANSWERED],
        },
    ),
    "deepseekv3": Pair(DEEPSEEK, (ASKED,), {key: [ASKED, ANSWERED] for key in WITH_TOOLS}, arguments="object"),
    "diffusion_gemma": Pair(
        (
            "<bos>",
            "<|turn>",
            "<turn|>",
            "<|tool_call>",
            "<tool_call|>",
            "<|tool_response>",
            "<tool_response|>",
            "<eos>",
        ),
        LINE,
        {key: [("only ours", "<|tool_response>"), *LINE] for key in WITH_TOOLS},
    ),
    "gemma": Pair(TURN, LINE, refused=("system", *WITH_TOOLS)),
    "gemma3": Pair(TURN, LINE, refused=WITH_TOOLS),
    "glm4moe": Pair(
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>"),
        rewritten=tuple(CHATS),
    ),
    "gptoss": Pair(
        ("<|start|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>", "<|end|>", "<|return|>"), STARTED
    ),
    "lfm2": Pair(IM, LINE, dict.fromkeys(("call", "reasoned call"), EMPTY_TURN)),
    "lfm2_v2": Pair(IM, LINE),
    "llama3": Pair(
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        special={key: [("not ours", "<|eot_id|>")] for key in ("call", "reasoned call")},
    ),
    "muse_glimmer": Pair(("<|start|>", "<|message|>", "<|eom|>", "<|eot|>"), STARTED),
    "nemotron_3_5_lightning": Pair(IM, LINE),
    "nemotron_3_nano": Pair(IM, LINE),
    "nemotron_3_super": Pair(IM, LINE),
    "nemotron_3_ultra": Pair(IM, LINE),
    "phi3": Pair(PHI_TOKENS, special=PHI_SPECIAL),
    "phi3_5": Pair(PHI_TOKENS, special=PHI_SPECIAL),
    "qwen2_5": Pair(IM, (("before", "\n"), *LINE)),
    "qwen2_5_vl": Pair(IM, LINE, dict.fromkeys(("call", "reasoned call"), EMPTY_TURN)),
    "qwen3": Pair(IM, LINE, rewritten=("multi", "system", "call", "calls", "reasoning")),
    "qwen3_5_nothink": Pair(
        IM,
        (NO_THINK, *LINE),
        dict.fromkeys(("reasoning", "reasoned call"), [THINK, *LINE] * 2),
        rewritten=HISTORY,
    ),
    "qwen3_5_think": Pair(IM, (THINK, *LINE), rewritten=HISTORY),
    "qwen3_6": Pair(IM, (THINK, *LINE), rewritten=HISTORY),
    "qwen3_8": Pair(IM, (THINK, *LINE)),
    "qwen3_instruct_2507": Pair(IM, LINE),
    "qwen3_vl": Pair(IM, LINE),
    "cohere2": Pair(
        (
            "<|START_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
            "<|END_OF_TURN_TOKEN|>",
        ),
        refused=WITH_TOOLS,
    ),
}
PICTURES = ("idefics3", "llava_next", "smolvlm")
"""Templates that take content as a list of parts alone, for pictures."""


def template(name: str, *, twin: bool = False) -> Template:
    tokens = PAIRS[name].tokens if name in PAIRS else IM
    return Template(
        name=name,
        source=(HOME / f"{name}{'_training' if twin else ''}.jinja").read_text(encoding="utf-8"),
        variables={"bos_token": "<bos>", "eos_token": tokens[-1]},
        control_tokens=tokens,
    )


def today() -> Render:
    """Return settings under which templates see the date that transformers gives them."""
    return Render(date=str(datetime.now(UTC).astimezone().date()))


def trained_by_twin(name: str, chat: Chat, tools: str | None, shape: Shape) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    twin = template(name, twin=True)
    canonical = [Message(*(message.get(field) for field in Message._fields)) for message in chat]
    texts, regions = render_jinja_template(
        [build(canonical, shape, tracing=False)],
        tools=None if tools is None else json.loads(tools),
        chat_template=twin.source,
        return_assistant_tokens_mask=True,
        **twin.variables,
    )
    return str(texts[0]), joined(regions[0])


def trained_by_us(row: dict[str, Any]) -> list[tuple[int, int]]:
    own = [span for span in row["spans"] if span["role"] == "assistant" and span["class"] != "generation_prompt"]
    return joined((span["start"], span["end"]) for span in own)


def joined(regions: Any) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in regions:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], end)
        elif start < end:
            out.append((start, end))
    return out


def differences(text: str, ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> list[Difference]:
    marks = bytearray(len(text))
    for side, regions in ((1, ours), (2, theirs)):
        for start, end in regions:
            for at in range(start, end):
                marks[at] |= side
    out: list[Difference] = []
    at = 0
    for mark, group in itertools.groupby(marks):
        end = at + len(list(group))
        if mark == 1:
            out.append(("only ours", text[at:end]))
        elif mark == 2:
            starts, ends = {start for start, _ in ours}, {end for _, end in ours}
            where = "after" if at in ends else "before" if end in starts else "not ours"
            out.append((where, text[at:end]))
        at = end
    return out


CASES = [
    pytest.param(
        name,
        key,
        id=f"{name}-{key.replace(' ', '-')}",
    )
    for name in PAIRS
    for key in CHATS
]


@pytest.mark.parametrize(("name", "key"), CASES)
def test_we_train_what_the_twin_trains_but_for_what_is_stated(name: str, key: str):
    pair, chat = PAIRS[name], CHATS[key]
    tools = TOOLS if key in WITH_TOOLS else None
    stock, settings = template(name), today()
    row = render_conversations(frame(chat, tools=tools), settings, template=stock).to_dicts()[0]
    if key in pair.refused:
        assert row["drop_reason"] == "template_error"
        return
    shape = probe(stock, settings).shape
    if pair.arguments:
        shape = shape._replace(arguments=pair.arguments)
    text, theirs = trained_by_twin(name, chat, tools, shape)
    assert (row["text"] != text) == (key in pair.rewritten)
    if key in pair.rewritten:
        row = render_conversations(frame(chat, tools=tools), settings, template=template(name, twin=True)).to_dicts()[0]
        assert row["text"] == text
    n_turns = sum(message["role"] == "assistant" for message in chat)
    expected = pair.special.get(key, list(pair.each) * n_turns)
    assert differences(text, trained_by_us(row), theirs) == expected


@pytest.mark.parametrize("name", PICTURES)
def test_a_template_for_pictures_is_refused_by_its_name(name: str):
    with pytest.raises(RenderError, match=name):
        probe(msgspec.structs.replace(template(name), control_tokens=IM), Render())


def test_every_twin_is_compared():
    twins = {path.name.removesuffix("_training.jinja") for path in HOME.glob("*_training.jinja")}
    assert twins == {*PAIRS, *PICTURES}
