# Two commands for a newcomer, each does all its own set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check

demo: .venv/ready
	$(BIN)/medvae demo --out demo-out --overwrite

test: check
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal --cov --cov-report=term:skip-covered --cov-fail-under=95

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy medvae pipelines

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "medvae needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	# torch first: whatever depends on it then takes the build that is there
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
