# Two commands do all the set-up: `make run` and `make test`. Each makes .venv from the pinned requirements.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := broker clients metrics protocol tests

.PHONY: run test check audit fmt bench bench-peers bench-scale proof crash proto requirements clean

run: $(VENV)/run.installed
	@exec $(BIN)/rocksmqd

# Three workers for two cores: tests wait half of the time, for disks, for processes that start, for time to pass.
# The order is that of tests/conftest.py; xdist's own would have files of few tests last, which are the slow ones.
test: $(VENV)/dev.installed
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/dev.installed
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports
	@# B104 is ruff's S104, which is asked for where it applies.
	$(BIN)/bandit --quiet --severity-level medium --skip B104 --recursive broker clients metrics protocol

# Whether an advisory is known of what is installed, and of what nobody could say; it asks PyPI, and so belongs to no test.
audit: $(VENV)/dev.installed
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements/dev.txt

fmt: $(VENV)/dev.installed
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: $(VENV)/dev.installed
	$(BIN)/python -m tests.bench

# RocksMQ beside other brokers, those that are here; half an hour. README's table is made of what it finds.
bench-peers: $(VENV)/dev.installed
	if command -v java && command -v mvn; then $(BIN)/python -m tests.bench.peers.kafka; fi
	$(BIN)/python -m tests.bench.peers $(BENCH_PEERS)
	$(BIN)/python -m tests.bench.peers.table --write README.md

# 100 million messages, then 10,000 channels: ten minutes, and 13 GB of disk meanwhile.
bench-scale: $(VENV)/dev.installed
	$(BIN)/python -m tests.bench.scale

# Crashes, power cuts, faults, fuzzing and limits, into tests/PROOF.md; three hours for all of it, ROWS names some.
proof: $(VENV)/dev.installed
	$(BIN)/python -m tests.proof $(ROWS)

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
