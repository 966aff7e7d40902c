"""Train the quick start's tokenizer: `python data/train_tokenizer.py [--sample data/sample] [--out data/tokenizer]`.

A byte-level BPE of 2,048 tokens with Qwen 2's pre-tokenizer, and a ChatML template. The same sample gives the same
bytes.
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY: Final = 2048
END_OF_TEXT, START, STOP = SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LONE: Final = re.compile(r"([^\x00-\x7f])")
"""What is trained on alone: every Chinese character and mark."""
ROLES: Final = ("system", "user", "assistant", "tool")

# Qwen 2's split: contractions, words, single digits, marks, line ends, spaces
SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONFIG: Final[dict[str, Any]] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": None,
    "eos_token": STOP,
    "pad_token": END_OF_TEXT,
    "unk_token": None,
    "add_prefix_space": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 2048,
}

TEMPLATE: Final = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {{- system + '\\n\\n' if system }}
    {{- 'You may call these functions:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif system %}
    {{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {{- message.content if message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function or call %}
            {{- '\\n' if message.content or not loop.first }}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def read_records(path: Path) -> Iterator[Any]:
    """Yield what can be read as JSON, record by record."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".json":
        yield from json.loads(data)
        return
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the sample holds lines that nobody can read
            continue


def contents(record: Any) -> Iterator[str]:
    """Yield every string that somebody says in a record of any shape."""
    if not isinstance(record, dict):
        return
    turns = record.get("messages") or record.get("conversations") or []
    said = [turn.get("content") or turn.get("value") for turn in turns if isinstance(turn, dict)]
    said += [record.get(key) for key in ("instruction", "input", "output", "prompt", "completion")]
    for text in said:
        # half of a surrogate pair cannot be encoded, and a tokenizer never meets one
        if isinstance(text, str) and text and not any("\ud800" <= character <= "\udfff" for character in text):
            yield text


def sample_texts(folder: Path) -> list[str]:
    """Return all that is said in the sample, file by file in the order of their names."""
    return [text for path in sorted(folder.iterdir()) for record in read_records(path) for text in contents(record)]


def train(texts: list[str]) -> Tokenizer:
    """Train the BPE; the roles that the template writes are words of the corpus too.

    Chinese has no spaces, so in a corpus this small whole phrases would become tokens, and a word would be part of
    different tokens wherever it stands. Each character apart from its neighbours is a token everywhere.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    said = [text for text in texts if not any(token in text for token in SPECIAL_TOKENS)]
    pieces = [piece for text in said for piece in LONE.split(text) if piece]
    tokenizer.train_from_iterator([*pieces, *(f"{role}\n" for role in ROLES for _ in range(1000))], trainer)
    return tokenizer


def main() -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Train the tokenizer of the quick start on the sample.")
    parser.add_argument("--sample", type=Path, default=here / "sample", help="folder of the sample")
    parser.add_argument("--out", type=Path, default=here / "tokenizer", help="folder to write")
    arguments = parser.parse_args()
    out: Path = arguments.out
    tokenizer = train(sample_texts(arguments.sample))
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.json").write_bytes(tokenizer.to_str(pretty=True).encode() + b"\n")
    (out / "tokenizer_config.json").write_bytes(json.dumps(CONFIG, indent=2).encode() + b"\n")
    (out / "chat_template.jinja").write_bytes(TEMPLATE.encode())
    print(f"{out}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
