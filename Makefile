# make run [CONFIG=site.yaml], make dashboard [CONFIG=site.yaml], make test,
# make test-slow, make install,
# make soak [MINUTES=n SEED=n], make chaos [FAULTS=n SEED=n]; see docs/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/demo.yaml
MINUTES ?= 10
FAULTS ?= 200
SEED ?= 1

.PHONY: run dashboard test tests-together test-slow install check soak chaos bench-gpu docs clean

run: install
	@exec $(BIN)/dasnet run $(CONFIG)

dashboard: install # the same, and a Prometheus beside it, which Debian's package `prometheus` brings
	@exec $(BIN)/python scripts/dashboard.py $(CONFIG)

install:
	@PYTHON=$(PYTHON) sh scripts/install.sh $(VENV)

test:
	@sh scripts/system_packages.sh
	@PYTHON=$(PYTHON) sh scripts/install.sh $(VENV) test
	@$(MAKE) --no-print-directory -j2 check tests-together
	@$(BIN)/python -m pytest -m "alone and not slow" $$(grep -rl "mark.alone" tests --include="test_*.py")

tests-together: export PYTHONDONTWRITEBYTECODE = # also where it is set; the tests that follow start sooner
tests-together: # a file's tests share a server; many wait
	@$(BIN)/python -m pytest -m "not slow and not gpu and not alone" -n 3 --dist loadfile --no-loadscope-reorder

test-slow: test # and what takes minutes
	@$(BIN)/python -m pytest -m "slow and not gpu"

check:
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/codespell
	@$(BIN)/clang-format --dry-run --Werror model/native/*.h model/native/*.cpp tests/support/*.cpp

soak: install # many cameras for a long time, then an overload; needs an otherwise idle machine
	@sh scripts/system_packages.sh
	@PYTHONPATH=tests $(BIN)/python -m endurance.soak --minutes $(MINUTES) --seed $(SEED)

chaos: install # fault injection; as root also packet loss and full disks
	@sh scripts/system_packages.sh
	@PYTHONPATH=tests $(BIN)/python -m endurance.chaos --faults $(FAULTS) --seed $(SEED)

bench-gpu: # checks and measures the CUDA engine; needs only a GPU, torch and numpy
	@PYTHONPATH=$(CURDIR) $(PYTHON) scripts/bench_gpu.py

docs: install # the documentation as a site, in site/
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@$(BIN)/python scripts/make_docs.py docs && $(BIN)/python scripts/make_diagrams.py docs/images
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo site/index.html

clean:
	rm -rf $(VENV) build *.egg-info run out site
