# make demo    generate data, train, verify, publish, evaluate, serve, send a request
# make test    all tests except the slow ones, on all cores; `.venv/bin/python -m pytest -m slow` runs those
# make check   ruff, mypy, the prose of docstrings, comments and messages (scripts/lint_docstrings.py), and the documentation
# make docs    build the documentation into build/site
# These set up .venv first, and again only when pyproject.toml or constraints.txt has changed: make demo installs what a user
# needs, the others add the tools of developers.

PYTHON ?= python3
VENV   := .venv
USER   := $(VENV)/installed
TOOLS  := $(VENV)/installed-tools
DATA   ?=
CONFIG ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check docs format install clean

demo: $(USER)
	@$(VENV)/bin/recall demo $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)")

test: $(TOOLS)
	@$(VENV)/bin/python -m pytest --numprocesses auto --dist worksteal

check: $(TOOLS)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/python scripts/lint_docstrings.py
	@$(VENV)/bin/mypy
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict

docs: $(TOOLS)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict
	@echo "build/site/index.html; with its search: $(VENV)/bin/python -m http.server --directory build/site"

format: $(TOOLS)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

install: $(TOOLS)

# The build backend goes in first and the project is built with it, so that one pinned set serves both steps.
# A failed or interrupted installation leaves no stamp, and the next make continues it.
$(USER): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one with: make PYTHON=python3.12 ...")'
	@rm -f $(USER) $(TOOLS)
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): torch is large, the first time takes some minutes."
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt hatchling editables
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[train,serve,report]'
	@touch $(USER)

$(TOOLS): $(USER)
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[train,serve,report,redis,s3,milvus,pgvector,otel,dev,docs]'
	@# its command line wants an older typer, which the tests do not use
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps openapi-python-client
	@touch $(TOOLS)

clean:
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .hypothesis
