"""Two engines with one result: `tokenizers`, the law, and gigatoken, many times faster where it proves itself equal."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.assets import Vocabulary
from stages.tokenize.definition import Definition, TokenizerError
from stages.tokenize.spelling import ALWAYS, Spellings, prepends, spellings

PROBES: Final = (
    "",
    " ",
    "Hello, world!",
    "  two  spaces\n\n\nand\ttabs \r\n",
    "don't WON'T I'll they've 1234567 3.14 1,000",
    "价格是一百二十三元。「你好」，世界！",
    "これはテストです。カタカナ",
    "안녕하세요 세계",
    "Привет, мир! Γειά σου Κόσμε",
    "مرحبا بالعالم שלום עולם",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "বাংলা தமிழ் తెలుగు ಕನ್ನಡ മലയാളം ગુજરાતી ਪੰਜਾਬੀ සිංහල",
    "ქართული Հայերեն አማርኛ ខ្មែរ ລາວ မြန်မာ བོད་ཡིག ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ ꆈꌠ",
    "Tiếng Việt Türkçe İıŞş čeština ŁÓDŹ Straße ÆØÅ Ǆǅǆ ᾳ ſ",
    "e\u0301 naïve café ﬁ Å ａｂｃ",
    "👍🏽 👩\u200d👩\u200d👧 🇨🇳 \u00a0\u2028\u3000\ufeff",
    "def f(x):\n    return {'a': [1, 2], \"b\": x ** 2}  # comment\n",
    "https://example.org/?q=1&r=%20#x user@example.org C:\\path\\file",
    "\x00\x01\x7f\u0080 \U0001f600\U000e0001 \U0010ffff",
    "1 12 123 1234 12345 123456 12,345.678 ١٢٣ १२३ Ⅻ ²³ ½ 0x1F 1e-9",
    " a  b   c    d\t\te \t f\n\n\ng \n h\r\n\r\ni\u00a0\u00a0j \n \n",
    "if (a!=b&&c||!d) { x->y[0] += *p++; } // \"q\" 'r' `s` #!$%^&*~|<>=?",
    "\u1112\u1161\u11ab \u00e5 a\u030a \u0958 \u212b \u2126 \ufb20 \U0001d15e",
    "a" * 72,
    " " * 90 + "\n" * 40 + "\t" * 20 + "-" * 80 + "=" * 33 + "." * 50,
)
"""Texts on which the engines must agree before gigatoken is used: scripts, emoji, whitespace runs, digits, code."""

COMPARED: Final = 32
"""Rows of a shard, from the first, whose ids are compared with those of `tokenizers`."""
_ROWS: Final = 512
"""What `tokenizers` is given at once: it makes an object of each token."""


@dataclass(kw_only=True)
class Engine:
    """A vocabulary ready to encode, and what is known of its tokens.

    `is_added[i]` says that token i is an added one, `is_control[i]` that only a template may write it, and
    `ends_stretch[i]` that what follows it is encoded as if a text began there. `prepends` is one of
    stages.tokenize.spelling.
    """

    oracle: Any
    fast: Any | None
    spellings: Spellings
    is_added: NDArray[np.bool_]
    is_control: NDArray[np.bool_]
    ends_stretch: NDArray[np.bool_]
    controls: dict[str, int]
    prepends: int
    definition: Definition
    guards: Any = None
    """What stages.tokenize.guard keeps: slow to make, and rarely needed."""

    def encode(self, texts: list[str], *, verify: int) -> tuple[NDArray[np.int64], NDArray[np.int32], bool]:
        """Return (offsets, ids, whether gigatoken differed); its first `verify` rows are compared with the oracle's.

        Where they differ, all of these texts are encoded by the oracle; no other call is touched by it, so that the
        result depends on `texts` alone. Nothing is added: beginning and end tokens stand exactly where the text has
        them.
        """
        if self.fast is None:
            return *self.encode_by_oracle(texts), False
        offsets, ids = _encode_by_gigatoken(self.fast, texts)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self.spellings.lengths):
            return *self.encode_by_oracle(texts), True
        checked = min(verify, len(texts))
        expected_offsets, expected = self.encode_by_oracle(texts[:checked])
        if not np.array_equal(expected_offsets, offsets[: checked + 1]) or not np.array_equal(
            expected, ids[: offsets[checked]]
        ):
            return *self.encode_by_oracle(texts), True
        return offsets, ids, False

    def encode_by_oracle(self, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return (offsets, ids) of `texts` as `tokenizers` encodes them."""
        rows = [
            np.asarray(row.ids, np.int32)
            for first in range(0, len(texts), _ROWS)
            for row in self.oracle.encode_batch_fast(texts[first : first + _ROWS], add_special_tokens=False)
        ]
        offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return offsets, np.concatenate(rows) if rows else np.empty(0, np.int32)

    def encode_with_offsets(self, texts: list[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Yield (ids, first and last character (exclusive) of each token) of each text, by the oracle."""
        for first in range(0, len(texts), _ROWS):
            for encoding in self.oracle.encode_batch(texts[first : first + _ROWS], add_special_tokens=False):
                yield encoding.ids, encoding.offsets


def _encode_by_gigatoken(fast: Any, texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return (offsets, ids) of `texts`, one by one: as fast as a batch, whose result another library has to be loaded for."""
    rows = [fast.encode(text) for text in texts]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return offsets, np.concatenate(rows).view(np.int32) if rows else np.empty(0, np.int32)


@functools.lru_cache(maxsize=4)
def engine_for(vocabulary: Vocabulary, engine: str) -> Engine:
    """Return the engine for `vocabulary`.

    Raises TokenizerError if gigatoken is demanded and unfit, or if the file and `tokenizers` disagree on an id.
    """
    definition = Definition(vocabulary.tokenizer_json)
    text = definition.to_json()
    oracle = load(text)
    _check_ids(definition, oracle)
    fast = None if engine == "tokenizers" else _prove_equal(text, definition, oracle)
    if engine == "gigatoken" and fast is None:
        raise TokenizerError(
            "[tokenize] engine = 'gigatoken': gigatoken does not support this tokenizer or disagrees with `tokenizers` "
            "on the probe texts; use engine = 'auto'"
        )
    controls = {text: definition.added_tokens[text].id for text in definition.controls(vocabulary.control_tokens)}
    spelled = spellings(definition, definition.vocabulary(), controls)
    is_added, is_control, ends_stretch = np.zeros((3, len(spelled.lengths)), np.bool_)
    is_added[[token.id for token in definition.added_tokens.values()]] = True
    is_control[list(controls.values())] = True
    prepended = prepends(definition)
    # Prepend is a normaliser: it sees what is left between the tokens that are cut out before normalisation.
    ends_stretch[
        [token.id for token in definition.added_tokens.values() if prepended != ALWAYS or not token.normalized]
    ] = True
    return Engine(
        oracle=oracle,
        fast=fast,
        spellings=spelled,
        is_added=is_added,
        is_control=is_control,
        ends_stretch=ends_stretch,
        controls=controls,
        prepends=prepended,
        definition=definition,
    )


def load(text: str) -> Any:
    """Return the `tokenizers.Tokenizer` of a tokenizer.json. Raises TokenizerError where it is none."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise TokenizerError(f"tokenizer.json cannot be loaded by `tokenizers`: {error}") from None


def _check_ids(definition: Definition, oracle: Any) -> None:
    """Raise TokenizerError unless each added token has the id that the file states.

    `tokenizers` numbers added tokens itself, in the order of the file: those that are not in the vocabulary follow it.
    """
    for content, token in definition.added_tokens.items():
        if (found := oracle.token_to_id(content)) != token.id:
            raise TokenizerError(
                f"tokenizer.json: the added token {content!r} has the id {token.id} in the file, but `tokenizers` gives "
                f"it {found}, for added tokens follow the vocabulary in the order of the file, without a gap. To keep "
                "the model's ids, list a placeholder added token for each id that is missing before it; to take the ids "
                "of `tokenizers`, write the file anew with Tokenizer.from_file(path).save(path)"
            )


def _prove_equal(text: str, definition: Definition, oracle: Any) -> Any | None:
    import gigatoken

    # those with flags first: they are found by rules of their own
    added = sorted(definition.added_tokens.values(), key=lambda token: token.is_literal)[:64]
    tokens = [token.content for token in added]

    try:
        fast = gigatoken.Tokenizer.from_json(text)
        texts = [*PROBES, "x".join(tokens), " ".join(tokens), "\n".join(tokens)]
        offsets, ids = _encode_by_gigatoken(fast, texts)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    theirs = [row.ids for row in oracle.encode_batch_fast(texts, add_special_tokens=False)]
    ours = [ids[first:last].tolist() for first, last in itertools.pairwise(offsets)]
    return fast if ours == theirs else None
