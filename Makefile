# Everything runs in a virtual environment of its own, .venv; set PYTHON or VENV to use others.
PYTHON ?= python3
VENV ?= .venv
export VIRTUAL_ENV := $(abspath $(VENV))
EXTRAS ?= cpu,demo,albef,experiments,dev
WORKERS ?= 2
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help install demo test check format up bench

help:  ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

install: $(VENV)/.installed  ## The virtual environment with all that demo, tests and checks need

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): torch alone is some gigabytes, so this takes a few minutes the first time"
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(RUN) -m uv pip install --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: install  ## A dozen users' photos and sentences, streamed; what was recommended, as a table and a page
	@$(RUN) -m zccr_stream demo $(ARGS)

test: install  ## All tests, on real brokers and databases: one of each per worker
	@$(RUN) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install  ## Format, lint, types, layers
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-cache

format: install  ## Format the code
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

up: install  ## Kafka and PostgreSQL for development, until Ctrl-C; prints the settings to export
	@$(RUN) -m zccr_stream.embedded $(ARGS)

bench: install  ## The benchmarks, as ratios to their floors
	@$(RUN) -m experiments.bench_interests
	@$(RUN) -m experiments.bench_index
	@$(RUN) -m experiments.bench_ownership
	@$(RUN) -m experiments.bench_journey $(ARGS)
