"""Whatever a message says, it brings no control token into the ids, and is encoded as the text it is.

Every added token of a tokenizer is put into every field of a conversation, at its start, in its middle, at its end, and cut
in two over neighbouring texts. The three kinds of tokenizer are made here; CHATLOOM_TOKENIZERS names a directory with real
ones, of which every added token is tried.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.assets import Assets, load_assets
from pipeline.config import load_config
from stages.render import Render, render_conversations
from stages.tokenize import Tokenize, encode_conversations
from stages.tokenize.definition import Definition
from tests.stages.test_render import frame
from tests.stages.vocabularies import added, byte_level, sentencepiece_like, unigram, with_added, word_piece

HOME = os.environ.get("CHATLOOM_TOKENIZERS")
TOKENIZERS = sorted(path.parent for path in Path(HOME).rglob("tokenizer.json")) if HOME else []
TOKENS = (
    added("<|open|>"),
    added("<|close|>"),
    added("<|tool|>"),
    added("<|tool|>s"),  # begins with another
    added("s<|tool|>"),  # ends with another
    added("<|<|tool|>|>"),  # holds another
    added("[INST]"),
    added("[/INST]"),
    added("<|left|>", lstrip=True),
    added("<|right|>", rstrip=True),
    added("<|both|>", lstrip=True, rstrip=True),
    added("<|normal|>", normalized=True),
    added("<|word|>", single_word=True),
    added("WORD", single_word=True),
    added("<|every flag|>", lstrip=True, rstrip=True, normalized=True, single_word=True),
    added("<two words>"),
    added("<three   wide words>"),
    added("\n<line>\n"),
    added("<｜宽｜>"),
    added("é<|accent|>"),
    added('"quoted"'),
    added("\\slash"),
    added("<plain>", special=False),
    added("<plain left>", special=False, lstrip=True),
    added("<plain right>", special=False, rstrip=True),
    added("plainword", special=False, single_word=True),
    added("<written>", special=False),  # plain, but the template writes it: so it alone may
    added("<|end", special=False),
    added("\t\t", special=False),
)
KINDS: dict[str, Callable[[], Any]] = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece_like,
    "unigram": unigram,
    "word_piece": word_piece,
}
SAID = ("content", "reasoning", "tool_call", "tool_result", "tools")
"""Classes of what comes with a conversation."""
UNKNOWN = ("<unk>", "[UNK]")
"""What a tokenizer makes of a character that it has never seen; any text may hold such."""
LOSSLESS = ("byte_level", "sentencepiece")

FRAMED = """\
{%- if tools %}{{ OPEN + 'tools\\n' + tools | tojson + CLOSE + '\\n' }}{% endif %}
{%- for message in messages %}
    {{- OPEN + message.role + '\\n' }}
    {%- if message.reasoning_content %}{{- WRITTEN + message.reasoning_content + WRITTEN }}{% endif %}
    {{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}{{- '\\nCall ' + call.function | tojson }}{% endfor %}
    {{- CLOSE + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- OPEN + 'assistant\\n' }}{% endif %}"""
GLUED = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}{{- OPEN + WRITTEN }}{% endif %}
    {{- message.reasoning_content or '' }}{{- message.content }}
    {%- if message.role == 'assistant' %}{{- CLOSE + '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- OPEN + WRITTEN }}{% endif %}"""
HALVED = """\
{%- for message in messages %}
    {{- OPEN + FIRST }}{{- message.content }}{{- SECOND + CLOSE + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- OPEN + FIRST }}{% endif %}"""


def conversation(before: str, after: str) -> list[dict[str, Any]]:
    """Return a conversation in which every field holds what stands between `before` and `after`."""
    arguments = {f"{before}key{after}": f"{before}value{after}", "n": [1, f"{before}{after}"]}
    calls = [{"id": "call00001", "type": "function", "function": {"name": "look", "arguments": arguments}}]
    return [
        {"role": "system", "content": f"{before}system{after}"},
        {"role": "user", "content": f"{before}user{after}"},
        {
            "role": "assistant",
            "content": f"{before}call{after}",
            "reasoning": f"{before}reason{after}",
            "tool_calls": json.dumps(calls, ensure_ascii=False),
        },
        {"role": "tool", "content": f"{before}result{after}", "tool_call_id": "call00001", "name": "look"},
        {"role": "assistant", "content": f"{before}answer{after}", "reasoning": f"{before}reason{after}"},
    ]


def split(first: str, second: str) -> list[dict[str, Any]]:
    """Return a conversation whose neighbouring texts end and begin with the halves of a token."""
    return [
        {"role": "system", "content": f"system {first}"},
        {"role": "user", "content": f"{second} user {first}"},
        {"role": "tool", "content": f"{second} result"},
        {"role": "assistant", "reasoning": f"reason {first}", "content": f"{second} answer"},
    ]


def schema(before: str, after: str) -> str:
    """Return the JSON text of a tool every name and text of which holds what stands between `before` and `after`."""
    parameters = {"type": "object", "properties": {f"{before}key{after}": {"description": f"{before}{after}"}}}
    function = {"name": f"{before}look{after}", "description": f"{before}text{after}", "parameters": parameters}
    return json.dumps([{"type": "function", "function": function}], ensure_ascii=False)


def positions(token: str) -> list[list[dict[str, Any]]]:
    return [conversation(token, ""), conversation("some ", f"{token} more "), conversation("", token)]


@dataclass
class Target:
    """A tokenizer with a template, as the build loads them."""

    directory: Path
    definition: Definition
    open: str
    close: str
    written: str
    lossless: bool

    @classmethod
    def of(cls, directory: Path, tokenizer_json: bytes, *, lossless: bool) -> "Target":
        (directory / "tokenizer.json").write_bytes(tokenizer_json)
        definition = Definition(tokenizer_json)
        names = {token.content: token for token in definition.added_tokens.values()}
        special = [text for text, token in names.items() if token.special and text not in UNKNOWN]
        if "<|open|>" in special:
            return cls(directory, definition, "<|open|>", "<|close|>", "<written>", lossless)
        plain = [text for text, token in names.items() if not token.special and "think" in text]
        return cls(directory, definition, special[0], special[-1], plain[0] if plain else "", lossless)

    def assets(self, source: str, **halves: str) -> Assets:
        names = {"OPEN": self.open, "CLOSE": self.close, "WRITTEN": self.written} | halves
        head = "".join("{%- set " + name + " = " + json.dumps(text) + " %}" for name, text in names.items())
        # a token that the template only halves must not stand in it whole
        (self.directory / "chat_template.jinja").write_text(head + source, encoding="utf-8")
        (self.directory / "c.toml").write_text(f'[tokenize]\ntokenizer = "{self.directory}"\n')
        return load_assets(load_config(self.directory / "c.toml"))

    def forbidden(self) -> set[int]:
        """Return the ids that content must not have: every special token's but the unknown one's, and what is written."""
        return {
            token.id
            for token in self.definition.added_tokens.values()
            if (token.special and token.content not in UNKNOWN) or token.content == self.written
        }


def encoded(assets: Assets, chats: list[list[dict[str, Any]]], tools: str | None = None) -> pl.DataFrame:
    """Return rows of text, character spans (`spans`), input_ids and token spans (`token_spans`)."""
    rendered = render_conversations(frame(*chats, tools=tools), Render(), template=assets.template)
    assert rendered["drop_reason"].null_count() == rendered.height, rendered["detail"].drop_nulls().to_list()[:3]
    out = encode_conversations(rendered, Tokenize(), assets.vocabulary)
    return rendered.select("text", "spans").with_columns(
        out["input_ids"], out["spans"].alias("token_spans"), out["n_straddling"], out["drop_reason"], out["detail"]
    )


def check(target: Target, assets: Assets, rows: pl.DataFrame, honest: list[int]) -> None:
    """Hold every row to what content may become."""
    from tokenizers import Tokenizer

    oracle = Tokenizer.from_str(json.dumps(json.loads(target.definition.to_json())))
    forbidden = target.forbidden()
    assert rows["drop_reason"].to_list() == [None] * rows.height, rows["detail"].drop_nulls().to_list()[:3]
    for row in rows.iter_rows(named=True):
        ids = row["input_ids"]
        assert [i for i in ids if i in forbidden] == honest, row["text"]
        for characters, tokens in zip(row["spans"], row["token_spans"], strict=True):
            own = ids[tokens["start"] : tokens["end"]]
            if characters["class"] in SAID:
                assert not forbidden.intersection(own), row["text"]
            if target.lossless and row["n_straddling"] == 0 and own:
                text = row["text"][characters["start"] : characters["end"]]
                assert squashed(oracle.decode(own, skip_special_tokens=False)) == squashed(text)
        if target.lossless:
            assert squashed(oracle.decode(ids, skip_special_tokens=False)) == squashed(row["text"])


def squashed(text: str) -> str:
    """Return text without the spaces that tokens with flags take and metaspaces add, and without metaspaces."""
    return "".join(text.replace("▁", " ").split())


def controls_of(target: Target, rows: pl.DataFrame) -> list[int]:
    forbidden = target.forbidden()
    return [i for i in rows["input_ids"][0].to_list() if i in forbidden]


def attack(target: Target, tokens: Iterable[str]) -> int:
    """Try every token in every place; return how many conversations that were."""
    tokens = list(tokens)
    framed = target.assets(FRAMED)
    honest = controls_of(target, encoded(framed, [conversation("", "")]))
    assert len(honest) >= 10  # five messages, opened and closed
    chats = [chat for token in tokens for chat in positions(token)]
    check(target, framed, encoded(framed, chats), honest)
    glued = target.assets(GLUED)
    honest = controls_of(target, encoded(glued, [split("", "")]))
    assert len(honest) >= 2
    halves = [
        split(token[:cut], token[cut:]) for token in tokens for cut in {1, len(token) // 2, len(token) - 1} if cut
    ]
    check(target, glued, encoded(glued, halves), honest)
    return len(chats) + len(halves)


def made(kind: str, directory: Path) -> Target:
    vocabulary = with_added(*TOKENS, vocabulary=KINDS[kind]())
    return Target.of(directory, vocabulary.tokenizer_json, lossless=kind in LOSSLESS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_added_token_in_any_field_becomes_a_control_token(kind: str, tmp_path: Path):
    target = made(kind, tmp_path)
    assert attack(target, target.definition.added_tokens) > 5 * len(TOKENS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_of_which_the_template_writes_one_half_stays_text(kind: str, tmp_path: Path):
    target = made(kind, tmp_path)
    for token in ("<|tool|>", "[INST]", "<two words>", "<|left|>", "<|right|>", "<｜宽｜>"):
        cut = len(token) // 2
        assets = target.assets(HALVED, FIRST=token[:cut], SECOND=token[:cut])
        chats = [
            [{"role": role, "content": f"{begin}text{end}"} for role in ("user", "assistant")]
            for begin, end in (("", ""), (token[cut:], ""), ("", token[cut:]), (token[cut:], token))
        ]
        rows = encoded(assets, chats)
        check(target, assets, rows, controls_of(target, rows))
        assert len(controls_of(target, rows)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_no_added_token_in_a_tool_schema_becomes_a_control_token(kind: str, tmp_path: Path):
    target = made(kind, tmp_path)
    assets = target.assets(FRAMED)
    honest = controls_of(target, encoded(assets, [conversation("", "")], schema("", "")))
    for token in target.definition.added_tokens:
        for before, after in ((token, ""), ("some ", f"{token} more "), ("", token)):
            check(target, assets, encoded(assets, [conversation("", "")], schema(before, after)), honest)


@pytest.mark.slow
@pytest.mark.parametrize("directory", TOKENIZERS, ids=lambda path: "/".join(path.parts[-3:]))
def test_no_added_token_of_a_real_tokenizer_becomes_a_control_token(directory: Path, tmp_path: Path):
    target = Target.of(tmp_path, (directory / "tokenizer.json").read_bytes(), lossless=True)
    assert attack(target, target.definition.added_tokens) > 0
