# The two commands that do all set-up: `make demo` and `make test`. Everything lives in .venv and .demo.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: demo test lint docs extras lock clean

demo: $(STAMP)
	$(BIN)/keepsight demo --folder .demo $(ARGS)

test: $(STAMP) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

# Installs the locked versions. pip and not uv: pip takes large wheels from a local folder where one is configured.
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(STAMP)

# The large extras [train], [ray], [mlflow], [video] and [ann]; tests that need one run where it is installed.
extras: $(VENV)/.extras

$(VENV)/.extras: $(STAMP) requirements-extras.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -r requirements-extras.lock
	touch $(VENV)/.extras

# Writes both lock files anew from what pyproject.toml allows.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet -e ".[dev]"
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable > requirements.lock
	$(VENV)-lock/bin/python -m pip install --quiet -c requirements.lock -e ".[dev,train,ray,mlflow,video,ann]"
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable | grep -vxF -f requirements.lock > requirements-extras.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) .demo site
