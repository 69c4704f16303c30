# Every command of the repository; laptop and CI run the same ones. `make help` lists them.
# The environment is .venv, made once from constraints.txt; a repeat costs nothing and needs no network.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
ARGS ?=
COVERAGE ?= 90
PROCESSES ?= 2
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROTOS := $(wildcard proto/fedpriv/wire/v1/*.proto)
PROTOC := $(BIN)/python -m grpc_tools.protoc -I proto

.DEFAULT_GOAL := help
.PHONY: help demo test check nightly lint format proto proto-check clean

help:  ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: .venv/.demo  ## Train on real data over five workers and prove what left; ARGS="--rounds 5 --json"
	@$(BIN)/fedpriv demo $(ARGS)

test: .venv/.develop  ## Run the ordinary tests; ARGS="tests/ledger -k root"
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

check: .venv/.develop lint proto-check  ## Run everything that a change has to pass
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -m "not slow" -n $(PROCESSES) --dist loadscope --cov --cov-report=term --cov-fail-under=$(COVERAGE)

nightly: .venv/.develop  ## Run the long tests: slow ones, and seeded fault schedules
	@$(BIN)/python -m pytest -m "slow or chaos" $(ARGS)

lint: .venv/.develop  ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: .venv/.develop  ## Format, and mend what ruff can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

proto: .venv/.develop  ## Generate fedpriv/wire/v1 from proto/
	@$(PROTOC) --python_out=. --pyi_out=. $(PROTOS)

proto-check: .venv/.develop  ## Check that the generated code is that of proto/
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT \
	  && $(PROTOC) --python_out="$$out" --pyi_out="$$out" $(PROTOS) \
	  && { diff -r -x __init__.py -x __pycache__ "$$out/fedpriv/wire/v1" fedpriv/wire/v1 \
	       || { echo "fedpriv/wire/v1 is not what proto/ generates: run make proto" >&2; exit 1; }; }

clean:  ## Remove the environment and every cache
	rm -rf .venv build dist .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installing. pip speaks on stderr, so that `make demo ARGS=--json` prints one JSON document and nothing else.
# torch comes first and alone: it is the large one, and every later step then finds it there.

.venv/.torch: constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing torch and what it needs, once (some minutes)" >&2
	@$(INSTALL) $$(grep '^torch==' constraints.txt) >&2
	@$(INSTALL) hatchling editables >&2
	@touch $@

.venv/.demo: .venv/.torch pyproject.toml
	@$(INSTALL) --no-build-isolation -e '.[all]' >&2
	@touch $@

.venv/.develop: .venv/.torch pyproject.toml
	@$(INSTALL) --no-build-isolation -e '.[develop]' >&2
	@touch $@ .venv/.demo
