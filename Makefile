# `make run` opens the app, `make test` checks everything. Each sets itself up on a fresh machine.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
BENCH  ?= two-cores
# One more than there are cores: tests also wait.
WORKERS = $(shell expr $$(nproc) + 1)

.DEFAULT_GOAL := help
.PHONY: help run test record bench audit screenshot clean

help:
	@echo "make run      open the app with the bundled model    (make run ARGS='--port 8000')"
	@echo "make test     all tests, the browser's included       (make test ARGS='tests/ui')"
	@echo "make record   decode all recorded traces again with the bundled model, and check the lessons against them"
	@echo "make bench    measure decoding, forwards, recording and growth again, for the charts in the app (BENCH=name of the report)"
	@echo "make audit    check the pinned packages against known advisories (needs the network)"
	@echo "make screenshot  take docs/screenshot.png again"
	@echo "make clean    remove the virtual environment"

run: $(VENV)/.run-ready
	$(BIN)/python app.py $(ARGS)

# Compiled files are kept, whatever else is set: every worker and every process that a test starts would compile all.
test: $(VENV)/.test-ready $(VENV)/.browser-ready
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

record: $(VENV)/.run-ready
	$(BIN)/nemodiff record

# On a machine that does nothing else; transformers, which it compares with, comes with the tests.
bench: $(VENV)/.test-ready
	$(BIN)/nemodiff bench decode trace forward scale --out ui/reports/$(BENCH).json

# Asks the public advisories about every pinned package.
audit:
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit; }
	.audit/bin/pip-audit --no-deps --disable-pip -r requirements.txt
	.audit/bin/pip-audit --no-deps --disable-pip -r requirements-test.txt

screenshot: $(VENV)/.test-ready $(VENV)/.browser-ready
	NEMODIFF_SCREENSHOT=1 $(BIN)/python -m pytest tests/e2e -k screenshot

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("nemodiff needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run-ready: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test-ready: requirements-test.txt $(VENV)/.run-ready
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	@touch $@

# The machine's own Chromium, else Playwright's download, else the distribution's package.
$(VENV)/.browser-ready: $(VENV)/.test-ready
	@sh tests/e2e/chromium.sh $(BIN)/python
	@touch $@

clean:
	rm -rf $(VENV) .audit
