# What a person or CI runs.  `make` alone explains.
#
# Everything happens in .venv; two stamps in it say how far it is: .package (what
# `make demo` needs) and .dev (the test tools as well).  Both follow pyproject.toml.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
DEV := $(VENV)/.dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-input --editable
PYTEST := $(BIN)/python -m pytest -q -rs
SPREAD := --numprocesses 2 --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo check test test-rdma bench soak lint clean

help:
	@echo "vfiomig: prove a VFIO migration driver's state machine"
	@echo
	@echo "  make demo       migrate a simulated device; the first run makes .venv"
	@echo "  make test       all tests, as CI runs them (under ten minutes)"
	@echo "  make test-rdma  the tests on the real librdmacm, in a VM (two minutes)"
	@echo "  make check      lint, types, layers and the fast tests (under two minutes)"
	@echo "  make bench      the figures, each a ratio to something measured beside it"
	@echo "  make soak       what takes hours: more examples, and 200 seeds on each driver"
	@echo "  make clean      remove .venv and every cache"
	@echo
	@echo "Needs Linux, Python 3.11 or later with venv; the header test needs cc."
	@echo "Another interpreter: make clean demo PYTHON=python3.12"
	@echo "Then: $(BIN)/vfiomig --help"

demo: $(PACKAGE)
	@$(BIN)/vfiomig migrate

check: lint
	$(PYTEST) $(SPREAD) -m "not slow" --hypothesis-profile=check

test: lint
	$(PYTEST) $(SPREAD)

test-rdma: $(DEV)
	@$(BIN)/python -m tests.rdma.run

bench: $(DEV)
	$(PYTEST) -s tests/bench

soak: $(DEV)
	$(PYTEST) --hypothesis-profile=soak tests/property
	$(PYTEST) -vv tests/soak

lint: $(DEV)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

clean:
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .benchmarks
	@find vfiomig tests examples -name __pycache__ -type d -prune \
		-exec rm -rf {} + 2>/dev/null || true

# $(call refuse,LINE): one line on stderr, and make stops.
refuse = { echo "vfiomig: $(1)" >&2; exit 1; }

# $(call pip,WHAT): install WHAT; pip is heard only when it fails.
pip = $(PIP) $(1) >$(VENV)/pip.log 2>&1 || { cat $(VENV)/pip.log >&2; \
	echo "vfiomig: pip could not install $(1): its output is above" >&2; exit 1; }

$(PACKAGE): pyproject.toml
	@[ "$$(uname -s)" = Linux ] || \
		$(call refuse,this is $$(uname -s); vfiomig runs on Linux only)
	@command -v "$(PYTHON)" >/dev/null || \
		$(call refuse,no $(PYTHON) here; install python3 and python3-venv)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		$(call refuse,$$("$(PYTHON)" --version) is too old; Python 3.11 or later is needed (make PYTHON=...))
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		$(call refuse,$(PYTHON) has no venv or ensurepip; install python3-venv)
	@echo "vfiomig: setting up $(VENV)" >&2
	@"$(PYTHON)" -m venv $(VENV)
	@$(call pip,.)
	@touch $@

$(DEV): $(PACKAGE)
	@echo "vfiomig: installing the test tools into $(VENV)" >&2
	@$(call pip,'.[dev]')
	@touch $@
