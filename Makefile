# Each target is one command. CONFIG, INPUT, RUN, GPUS, ... are passed on: make data INPUT='my/*.jsonl' RUN=runs/mine
# ARGS is anything else that the command takes: make train ARGS='--fresh --set train.lr=1e-3'
CONFIG ?= configs/tiny.toml
PYTHON ?= python3
# Files of tests are shared out among processes: one per core, four at most, for each compiles kernels of its own at first.
# In the order of their names: sorted by how many tests they hold, the few long ones would come last and leave cores idle.
PYTEST = .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
run = $(if $(RUN),--run '$(RUN)')

.PHONY: help data train test test-slow check look funnel chat generate bench bench-train clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

data: .venv/ready  ## build training shards (CONFIG=, INPUT=, LIMIT=, RUN=, ARGS=)
	.venv/bin/chatloom data $(CONFIG) $(if $(INPUT),--input '$(INPUT)') $(if $(LIMIT),--limit $(LIMIT)) $(run) $(ARGS)

train: .venv/ready  ## fine-tune on them (CONFIG=, RUN=, GPUS=, RESTARTS=, ARGS=)
	.venv/bin/chatloom train $(CONFIG) $(run) $(if $(GPUS),--gpus $(GPUS)) $(if $(RESTARTS),--restarts $(RESTARTS)) $(ARGS)

test: .venv/ready-dev  ## run the tests
	$(PYTEST)

test-slow: .venv/ready-dev  ## run the tests that take longer, too
	$(PYTEST) -m ''

check: .venv/ready-dev  ## format, lint, types and tests, as CI does
	.venv/bin/ruff format --check && .venv/bin/ruff check && .venv/bin/mypy && $(PYTEST)

look: .venv/ready  ## show a conversation with its trained tokens in colour (RUN=, STAGE=, ROW=)
	.venv/bin/chatloom look $(or $(RUN),runs/tiny) $(or $(STAGE),mask) --row $(or $(ROW),0)

funnel: .venv/ready  ## show what was kept and dropped, and why (RUN=)
	.venv/bin/chatloom funnel $(or $(RUN),runs/tiny)

chat: .venv/ready  ## talk with the trained model (RUN=, ARGS=)
	.venv/bin/chatloom chat $(or $(RUN),runs/tiny) $(ARGS)

generate: .venv/ready  ## answer a file of prompts (RUN=, INPUT=, OUTPUT=, ARGS=)
	.venv/bin/chatloom generate $(or $(RUN),runs/tiny) --input '$(or $(INPUT),data/held_out.jsonl)' $(if $(OUTPUT),--output '$(OUTPUT)') $(ARGS)

bench-train: .venv/ready-dev  ## measure training steps against TRL's (INPUT= a JSONL file, TOKENIZER= a directory)
	.venv/bin/python -m bench.train $(if $(INPUT),--input '$(INPUT)') $(if $(TOKENIZER),--tokenizer '$(TOKENIZER)')

bench: .venv/ready-dev  ## measure speed (INPUT= a JSONL file, TOKENIZER= a directory)
	.venv/bin/python -m bench.pipeline $(if $(INPUT),--input '$(INPUT)') $(if $(TOKENIZER),--tokenizer '$(TOKENIZER)')

clean:  ## remove what was built, keep the virtual environment
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis build

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	.venv/bin/python -m pipeline.warm
	@touch $@

.venv/ready-dev: .venv/ready
	.venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
