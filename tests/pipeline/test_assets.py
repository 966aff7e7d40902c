import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from pipeline.assets import Assets, load_assets
from pipeline.assets import write_tokenizer as write_served
from pipeline.config import load_config
from schemas.settings import ConfigError

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITH_TOOLS = "{% if tools %}Call a tool as <tool_call>: {{ tools | tojson }}\n{% endif %}" + TURNS + PROMPT


def write_tokenizer(directory: Path, *special: str, plain: tuple[str, ...] = (), **beside: Any) -> Path:
    """Write a byte-level tokenizer that knows the bytes and the given tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(beside))
    return directory


def load(tmp_path: Path, tokenizer: Path, template: str, *stop: str) -> Assets:
    if template.startswith("{"):
        (tmp_path / "t.jinja").write_text(template)
        template = str(tmp_path / "t.jinja")
    config = f"[tokenize]\ntokenizer = '{tokenizer}'\n[render]\ntemplate = '{template}'\nstop = {list(stop)}\n"
    (tmp_path / "c.toml").write_text(config)
    return load_assets(load_config(tmp_path / "c.toml"))


def test_one_set_of_control_tokens_for_render_and_tokenize(tmp_path: Path):
    special = ("<|im_start|>", "<|im_end|>")
    assets = load(tmp_path, write_tokenizer(tmp_path, *special, plain=("<tool_call>", "<other>")), WITH_TOOLS)
    assert assets.vocabulary.control_tokens == ("<tool_call>", "<|im_end|>", "<|im_start|>")
    assert assets.template.control_tokens == ("<|im_end|>", "<|im_start|>")
    assert assets.template.plain_control_tokens == ("<tool_call>",)


def test_tokens_that_the_template_writes_by_a_variable_or_that_stop_a_turn_are_controls(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<|im_start|>", plain=("[END]", "[BOS]", "[X]"), bos_token="[BOS]")
    source = (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}{{ '[EN' + 'D]' }}{% endfor %}"
    )
    assets = load(tmp_path, tokenizer, source, "[END]")
    assert assets.vocabulary.control_tokens == ("<|im_start|>", "[BOS]", "[END]")
    assert assets.generation_config["eos_token_id"] == [257]


def test_the_unknown_token_is_a_control_where_it_is_also_the_end_of_a_turn(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<|im_start|>", "<unk>", "<end>", unk_token="<unk>", eos_token="<end>")
    path = tokenizer / "tokenizer.json"
    settings = json.loads(path.read_text())
    source = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    for unknown, expected in (("<unk>", ("<end>", "<|im_start|>")), ("<end>", ("<end>", "<unk>", "<|im_start|>"))):
        settings["model"]["unk_token"] = unknown
        path.write_text(json.dumps(settings))
        assert load(tmp_path, tokenizer, source).vocabulary.control_tokens == expected


def test_a_configured_stop_that_the_tokenizer_does_not_know_is_refused(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<|endoftext|>")
    with pytest.raises(ConfigError, match=r"\[render\] stop.*'<\|im_end\|>' is not a token of .*<\|endoftext\|>"):
        load(tmp_path, tokenizer, TURNS + PROMPT, "<|im_end|>")
    both = write_tokenizer(tmp_path / "both", "<|im_start|>", "<|im_end|>")
    assert load(tmp_path, both, TURNS + PROMPT, "<|im_end|>").generation_config["eos_token_id"] == [257]


def test_a_stop_that_the_template_writes_and_the_tokenizer_does_not_know_is_refused(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<s>", eos_token="</s>")
    source = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    with pytest.raises(
        ConfigError, match=r"template t.jinja: the stop '</s>' is not a token of .*Choose a chat template"
    ) as refused:
        load(tmp_path, tokenizer, source)
    remedy = "{#- tokens: </s> -#}"
    assert remedy in str(refused.value)
    assert load(tmp_path, tokenizer, remedy + source).added_tokens == {"</s>": 257}


def test_declared_tokens_that_the_tokenizer_lacks_are_added_at_its_end(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tokenizer = write_tokenizer(
        tmp_path / "tokenizer", "<|endoftext|>", eos_token="<|endoftext|>", tokenizer_class="PreTrainedTokenizerFast"
    )
    assets = load(tmp_path, tokenizer, "chatml")
    assert assets.added_tokens == {"<|im_start|>": 257, "<|im_end|>": 258}
    assert assets.vocabulary.control_tokens == ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
    assert assets.generation_config["eos_token_id"] == [258, 256]
    write_served(tmp_path / "out", assets)
    served = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "Hi"}]
    ids = served.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    oracle = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert ids == oracle.encode(text, add_special_tokens=False).ids
    assert [i for i in ids if i > 255] == [257, 258, 257]
    assert "<|" not in served.decode(ids, skip_special_tokens=True)


def test_a_tokenizer_that_has_what_is_declared_stays_byte_for_byte_what_it_is(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<|im_start|>", "<|im_end|>")
    assets = load(tmp_path, tokenizer, "chatml")
    assert assets.added_tokens == {}
    assert assets.vocabulary.tokenizer_json == (tokenizer / "tokenizer.json").read_bytes()


def test_a_declared_token_ends_a_turn_though_the_tokenizer_does_not_flag_it_special(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<s>", plain=("</s>",))
    assets = load(tmp_path, tokenizer, "llama-2")
    assert assets.added_tokens == {}
    assert assets.template.control_tokens == ("</s>", "<s>")
    assert assets.generation_config["eos_token_id"] == [257]


def test_a_variable_that_a_template_needs_and_nobody_gives_is_asked_for(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<end>")
    with pytest.raises(
        ConfigError,
        match=r"template = 'vicuna' writes eos_token, .* names none; set \[render\] variables = "
        r"\{eos_token = \"\.\.\.\"\} .*it has '<end>'",
    ):
        load(tmp_path, tokenizer, "vicuna")
    config = f"[tokenize]\ntokenizer = '{tokenizer}'\n[render]\ntemplate = 'vicuna'\n"
    (tmp_path / "c.toml").write_text(config + "variables = {eos_token = '<end>', motto = 'x'}\n")
    assets = load_assets(load_config(tmp_path / "c.toml"))
    assert assets.template.variables == {"eos_token": "<end>", "motto": "x"}
    assert assets.tokenizer_config == {"eos_token": "<end>"}, (
        "served with the token; other variables are no tokenizer's"
    )
    assert assets.generation_config["eos_token_id"] == [256]
    (tmp_path / "c.toml").write_text(config + "variables = {eos_token = '<end>', messages = 'x'}\n")
    with pytest.raises(ConfigError, match=r"variables: messages would hide the conversation's own messages"):
        load_assets(load_config(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_text(config + "variables = {eos_token = '</s>'}\n")
    with pytest.raises(ConfigError, match=r"variables: eos_token = '</s>' is not a token of .*it has '<end>'"):
        load_assets(load_config(tmp_path / "c.toml"))


def test_the_config_s_variables_come_before_the_tokenizer_s(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path, "<end>", "<stop>", eos_token="<end>", bos_token="<stop>")
    (tmp_path / "c.toml").write_text(
        f"[tokenize]\ntokenizer = '{tokenizer}'\n[render]\ntemplate = 'zephyr'\nvariables.eos_token = '<stop>'\n"
    )
    assets = load_assets(load_config(tmp_path / "c.toml"))
    assert assets.template.variables == {"eos_token": "<stop>", "bos_token": "<stop>"}
    assert assets.generation_config["eos_token_id"] == [257]
