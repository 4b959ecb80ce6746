# Two commands do all the set-up: `make run` and `make test`. Each makes .venv from the pinned requirements.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := broker clients metrics protocol tests

.PHONY: run test check fmt bench crash proto requirements clean

run: $(VENV)/run.installed
	@exec $(BIN)/rocksmqd

test: $(VENV)/dev.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/dev.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports

fmt: $(VENV)/dev.installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/dev.installed
	$(BIN)/python -m tests.bench

crash: $(VENV)/dev.installed
	$(BIN)/python -m tests.crash

# Generates anew what is committed. A newer compiler may need a newer protobuf: then the extra in pyproject.toml says so.
proto: $(VENV)/dev.installed
	cd clients && ../$(BIN)/python -m grpc_tools.protoc --proto_path=. --python_out=. --pyi_out=. rocksmq/clients/msgstream/messages.proto

# Pins anew what the .in files allow; no index is named, so that any mirror will do.
requirements: $(VENV)/dev.installed
	$(PIP) install --quiet pip-tools
	for part in run image dev; do \
	  CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile --quiet --upgrade --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-emit-trusted-host --no-header --strip-extras --allow-unsafe \
	    --output-file requirements/$$part.txt requirements/$$part.in && \
	  sed -i '1i # Made from the .in file beside this one by `make requirements`.' requirements/$$part.txt || exit 1; \
	done

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: requirements/%.txt pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --require-hashes --requirement $<
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
