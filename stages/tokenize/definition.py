"""A tokenizer.json, read only as far as needed: the vocabulary in it, by far the largest part, stays undecoded text."""

from collections.abc import Iterable
from typing import Any

import msgspec

from schemas.errors import GateError


class TokenizerError(GateError):
    """The tokenizer cannot be used; the text says why and what to do."""


class AddedToken(msgspec.Struct, frozen=True):
    """An entry of `added_tokens`."""

    id: int
    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def is_literal(self) -> bool:
        """Whether the token is found wherever the text spells it, and takes nothing beside it."""
        return not (self.lstrip or self.rstrip or self.single_word or self.normalized)


class ModelHead(msgspec.Struct, frozen=True):
    """What matters of the section `model` beside its vocabulary."""

    type: str | None = None
    byte_fallback: bool | None = None
    unk_token: str | None = None
    unk_id: int | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


class Definition:
    """The sections of a tokenizer.json. Raises TokenizerError when it is not one."""

    def __init__(self, tokenizer_json: bytes) -> None:
        try:
            self._parts = msgspec.json.decode(tokenizer_json, type=dict[str, msgspec.Raw])
            tokens = msgspec.json.decode(self._parts.get("added_tokens", b"[]"), type=list[AddedToken] | None)
            self.model = msgspec.json.decode(self._parts.get("model", b"{}"), type=ModelHead)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise TokenizerError(f"tokenizer.json is not a valid tokenizer: {error}") from None
        self.added_tokens: dict[str, AddedToken] = {token.content: token for token in tokens or () if token.content}

    def components(self, section: str) -> list[dict[str, Any]]:
        """Return the normalizers or pre-tokenizers of a section, sequences laid flat."""
        return _flat(msgspec.json.decode(self._parts.get(section, b"null")))

    @property
    def unknown(self) -> str | None:
        """The token of what the vocabulary lacks; Unigram names it by its id."""
        by_id = {token.id: text for text, token in self.added_tokens.items()}
        return self.model.unk_token or (None if self.model.unk_id is None else by_id.get(self.model.unk_id))

    def controls(self, written: Iterable[str]) -> tuple[str, ...]:
        """Return the added tokens that only a template may write, sorted: the special ones and those of `written`.

        Unless it is written, the unknown token is none of them: it is what the tokenizer itself makes of a character it
        has never seen.
        """
        special = {text for text, token in self.added_tokens.items() if token.special} - {self.unknown}
        return tuple(sorted(special | self.added_tokens.keys() & set(written)))

    def id_of(self, text: str) -> int | None:
        """Return the id of the token spelled `text`, added or of the vocabulary, or None."""
        if text in self.added_tokens:
            return self.added_tokens[text].id
        return self.vocabulary().get(text)

    def vocabulary(self) -> dict[str, int]:
        """Return the ids of the model's own tokens. Raises TokenizerError if the file lays them out in another way."""
        model = msgspec.json.decode(self._parts.get("model", b"{}"), type=dict[str, msgspec.Raw])
        found = model.get("vocab", msgspec.Raw(b"{}"))
        try:
            if bytes(found).lstrip()[:1] == b"[":  # Unigram: each token with its score
                return {text: i for i, (text, _) in enumerate(msgspec.json.decode(found, type=list[tuple[str, float]]))}
            return msgspec.json.decode(found, type=dict[str, int])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise TokenizerError(f"tokenizer.json: model.vocab is not one that is known: {error}") from None

    def with_special(self, texts: Iterable[str]) -> tuple[bytes, dict[str, int]]:
        """Return the tokenizer.json with each of `texts` a special token, and the ids of those that got a new one.

        What the tokenizer has already stays as it is; all else is added at the end, in order, with the next free ids.
        `tokenizers` gives it those same ids when it reads the file. Raises TokenizerError where there is no next free id.
        """
        missing = [text for text in dict.fromkeys(texts) if text not in self.added_tokens]
        vocabulary = self.vocabulary()
        free = max(len(vocabulary), *(token.id + 1 for token in self.added_tokens.values()), 0)
        new = {text: free + i for i, text in enumerate(text for text in missing if text not in vocabulary)}
        if new and max(vocabulary.values(), default=-1) >= free:
            raise TokenizerError(
                f"tokenizer.json: {', '.join(map(repr, new))} cannot be added, for its {len(vocabulary)} tokens have ids up "
                f"to {max(vocabulary.values())} and `tokenizers` would number new ones from {free}, which is taken; add "
                "them to the tokenizer and to the model yourself, or choose a template whose tokens it has"
            )
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        tokens = msgspec.json.decode(self._parts.get("added_tokens", b"[]")) or []
        tokens += [{"id": (vocabulary | new)[text], "content": text, **flags} for text in missing]
        return msgspec.json.encode(self._parts | {"added_tokens": msgspec.Raw(msgspec.json.encode(tokens))}), new

    def to_json(self, *, renamed: dict[str, str] | None = None) -> str:
        """Return the text of a tokenizer that adds, cuts and pads nothing, with some added tokens spelled otherwise.

        Where the model's own vocabulary has them too, they are renamed there as well, and keep their ids; but BPE may have
        merges that make them.
        """
        # Special tokens are the template's business, and trimmed offsets would move a leading space out of its span.
        null = msgspec.Raw(b"null")
        parts: dict[str, Any] = self._parts | {"post_processor": null, "truncation": null, "padding": null}
        if renamed:
            tokens = msgspec.json.decode(self._parts.get("added_tokens", b"[]"))
            parts["added_tokens"] = [
                token | {"content": renamed.get(token["content"], token["content"])} for token in tokens
            ]
            if self.model.type != "BPE":
                parts["model"] = self._renamed_model(renamed)
        return msgspec.json.encode(parts).decode()

    def _renamed_model(self, renamed: dict[str, str]) -> dict[str, Any]:
        model: dict[str, Any] = msgspec.json.decode(self._parts.get("model", b"{}"))
        if isinstance(model["vocab"], list):
            vocabulary: Any = [[renamed.get(text, text), score] for text, score in model["vocab"]]
        else:
            vocabulary = {renamed.get(text, text): i for text, i in model["vocab"].items()}
        return model | {"vocab": vocabulary}


def _flat(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    if component is None:
        return []
    if component.get("type") == "Sequence":
        inner = component.get("normalizers") or component.get("pretokenizers") or []
        return [part for item in inner for part in _flat(item)]
    return [component]
