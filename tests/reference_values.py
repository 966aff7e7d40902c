"""What the reference systems say of themselves, for the presets in configs/presets to be compared with."""

import math
from typing import Any

TINYLLAMA: dict[str, Any] = {
    "seed": 0,
    "dedup.seed": 42,
    "dedup.validation": 512,
    "pack.max_seq_len": 512,
    "model.path": "TinyLlama/TinyLlama-1.1B-intermediate-step-240k-503b",
    "lora.rank": 0,
    "train.lr": 1e-5,
    "train.schedule": "constant",
    "train.warmup_ratio": 0.05,
    "train.epochs": 5,
    "train.batch": 4 * 4,
    "train.weight_decay": 0.0,
    "train.beta1": 0.9,
    "train.beta2": 0.999,
    "train.clip": 1.0,
    "train.dtype": "float32",
    "train.keep_checkpoints": 6,
    "train.log_every": 10,
    "generation.top_k": 50,
    "generation.top_p": 0.9,
    "generation.repetition_penalty": 1.1,
    "generation.max_new_tokens": 1024,
}
RASBT: dict[str, Any] = {
    "seed": 123,
    "dedup.validation": 55,
    "dedup.test": 110,
    "render.template": "configs/presets/rasbt-alpaca.jinja",
    "tokenize.tokenizer": "openai-community/gpt2",
    "mask.preset": "none",
    "mask.weights": {},
    "pack.max_seq_len": 1024,
    "model.path": "openai-community/gpt2-medium",
    "lora.rank": 0,
    "train.lr": 5e-5,
    "train.schedule": "constant",
    "train.warmup_ratio": None,
    "train.epochs": 2,
    "train.batch": 8,
    "train.weight_decay": 0.1,
    "train.beta2": 0.999,
    "train.clip": math.inf,
    "train.eval_every": 5,
    "generation.max_new_tokens": 256,
    "generation.temperature": 0.0,
}
MINIGPT: dict[str, Any] = {
    "length.max_chars": 511,
    "mask.preset": "full",
    "pack.max_seq_len": 512,
    "train.schedule": "linear",
    "train.min_lr_ratio": 0.0,
    "train.epochs": 1,
    "train.batch": 16 * 8 * 4,
    "train.micro_batch": 16,
    "train.weight_decay": 0.01,
    "train.dropout": 0.1,
    "train.clip": 1.0,
    "train.checkpoint_every": 100,
    "train.keep_checkpoints": 3,
    "train.log_every": 10,
}
MINIMIND: dict[str, Any] = {
    "seed": 42,
    "dedup.validation": 512,
    "render.template": "minimind",
    "tokenize.tokenizer": "jingyaogong/minimind-3",
    "mask.preset": "full",
    "train.schedule": "cosine",
    "train.min_lr_ratio": 0.1,
    "train.warmup_ratio": None,
    "train.warmup_steps": None,
    "train.clip": 1.0,
}
VALUES: dict[str, dict[str, Any]] = {
    "tinyllama-v0.1": TINYLLAMA | {"render.template": "guanaco", "mask.preset": "none"},
    "tinyllama-v0.2": TINYLLAMA | {"render.template": "chatml", "mask.preset": "full"},
    "rasbt-baseline": RASBT,
    "rasbt-mask": RASBT | {"mask.preset": "full", "mask.weights": {"assistant": {"generation_prompt": 1.0}}},
    "rasbt-phi3": RASBT | {"render.template": "configs/presets/rasbt-phi3.jinja"},
    "rasbt-alpaca52k": RASBT
    | {
        "dedup.validation": 2601,
        "dedup.test": 5200,
        "pack.max_seq_len": 512,
        "train.batch": 4,
        "train.eval_every": 650,
    },
    "rasbt-lora": RASBT | {"lora.rank": 16, "lora.alpha": 16.0, "lora.dropout": 0.0},
    "minigpt-sft": MINIGPT
    | {
        "render.template": "plain",
        "dedup.validation": 0,
        "train.drop_last": True,
        "lora.rank": 0,
        "train.lr": 1e-5,
        "model.model_type": "gpt2",
        "model.num_hidden_layers": 12,
        "model.hidden_size": 768,
        "model.num_attention_heads": 12,
        "model.max_position_embeddings": 512,
        "model.intermediate_size": 3072,
    },
    "minigpt-lora": MINIGPT
    | {
        "render.template": "human-assistant",
        "dedup.validation": 512,
        "lora.rank": 8,
        "lora.alpha": 32.0,
        "lora.dropout": 0.1,
        "train.lr": 1e-4,
        "model.path": "runs/minigpt-sft/train/export",
    },
    "minimind-sft": MINIMIND
    | {
        "pack.max_seq_len": 768,
        "lora.rank": 0,
        "train.lr": 1e-5,
        "train.epochs": 2,
        "train.batch": 16,
        "length.max_chars": 511,
    },
    "minimind-lora": MINIMIND
    | {
        "pack.max_seq_len": 340,
        "lora.rank": 16,
        "lora.alpha": 16.0,
        "train.lr": 1e-4,
        "train.epochs": 10,
        "train.batch": 32,
        "model.path": "runs/minimind-sft/train/export",
    },
}
"""What the reference systems' own scripts say."""

DIALOGUE = ["Who are you?", "A small model.", "Thanks!", "Gladly."]
THOUGHT = {"role": "assistant", "reasoning_content": "Two and two.", "content": "Four."}
TRAINED = {
    # the first token of a conversation is never trained, and the stand-in tokenizer has no bos_token before it
    "tinyllama-v0.1": "## Human: Who are you?### Assistant: A small model.<|im_end|>"
    "### Human: Thanks!### Assistant: Gladly.<|im_end|>",
    "tinyllama-v0.2": "A small model.<|im_end|>Gladly.<|im_end|>",
    "rasbt-baseline": "elow is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\nName the colour.\n\n### Input:\nSnow\n\n### Response:\nWhite.<|endoftext|>",
    "rasbt-mask": "\n\n### Response:\nWhite.<|endoftext|>",
    "rasbt-phi3": "|user|>\nName the colour.\nSnow\n<|assistant|>:\nWhite.<|endoftext|>",
    "minigpt-sft": " A small model.<|im_end|> Gladly.<|im_end|>",
    "minimind-sft": "A small model.<|im_end|>Gladly.<|im_end|>",
}
TRAINED |= dict.fromkeys(("rasbt-alpaca52k", "rasbt-lora"), TRAINED["rasbt-baseline"])
TRAINED |= {"minigpt-lora": TRAINED["minigpt-sft"], "minimind-lora": TRAINED["minimind-sft"]}
"""The trained tokens of the first record as text: of the dialogue, or of the question with an input."""
