# make run [CONFIG=site.yaml], make test, make install; see README.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/demo.yaml

.PHONY: run test install check picture clean

run: install
	@exec $(BIN)/dasnet run $(CONFIG)

install:
	@PYTHON=$(PYTHON) sh scripts/install.sh $(VENV)

test:
	@PYTHON=$(PYTHON) sh scripts/install.sh $(VENV) test
	@sh scripts/system_packages.sh
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest

check:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) build *.egg-info run out
