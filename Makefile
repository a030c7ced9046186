# What a person types. `make demo` and `make test` do everything on a fresh Debian or Ubuntu machine with Rust.

PREFIX ?= /usr/local
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(notdir $(wildcard tools/*))
# Ranks over MPI are tested where its compiler is.
FEATURES := $(if $(shell command -v mpicc),--features vcl-train/mpi)

.PHONY: all help setup build test campaign soak fuzz lint man install demo repro replicate dist wheel site clean

all: build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what the build needs (through apt, as root or with sudo -n)
	@scripts/setup

build: setup ## build the tools, release profile
	@CARGO="$(CARGO)" scripts/tools

test: setup ## every test
	$(CARGO) build --workspace --bins $(FEATURES)
	$(CARGO) test --workspace $(FEATURES)

campaign: setup ## kills, surroundings and simulations, as many as ROUNDS (500)
	$(CARGO) build --workspace --bins
	FLOWLENS_CAMPAIGN=$(or $(ROUNDS),500) $(CARGO) test --workspace --test campaign --test coverage -- --nocapture

soak: setup ## 50 GB of rows, ten million records, a hundred thousand prompts: memory and time of each tool
	$(CARGO) build --release --workspace --bins
	FLOWLENS_SOAK=1 $(CARGO) test --release --workspace --test soak -- --nocapture --test-threads 1

fuzz: setup ## look for bytes that a reader does not stand, MINUTES (1) for each of TARGETS (all)
	@MINUTES='$(MINUTES)' TARGETS='$(TARGETS)' tests/fuzz/run

lint: setup ## formatting and clippy, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(FEATURES) -- -D warnings

man: setup ## render the man pages and README blocks anew
	$(CARGO) build --workspace --bins
	UPDATE=1 $(CARGO) test -p flowlens-tests --test docs

install: build ## binaries, man pages and completions under PREFIX
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' TARGET='$(TARGET)/release' scripts/install $(TOOLS)

demo: build ## the first paper on a little made world: demo-out/report.html (FULL=1 for all shares)
	$(MAKE) --no-print-directory -C scripts/repro BIN='$(abspath $(TARGET))/release' OUT='$(CURDIR)/demo-out'
	@echo "demo: open demo-out/report.html"

repro: build ## the same with other settings, such as SETTINGS=paper MODEL=world OUT=/DIR; STEP=plan says what it costs
	$(MAKE) --no-print-directory -C scripts/repro BIN='$(abspath $(TARGET))/release' $(STEP)

replicate: build ## the paper on a real language model, MODEL=DIR or FILE.gguf and DATA=DIR; STEP=plan says what it costs
	$(MAKE) --no-print-directory -C scripts/repro BIN='$(abspath $(TARGET))/release' SETTINGS=smollm2 \
	    OUT='$(or $(OUT),$(CURDIR)/replicate-out)' $(STEP)

dist: setup ## an archive that runs on older machines with no BLAS
	@scripts/dist $(TOOLS)

wheel: dist ## the same as a Python wheel: uv tool install, or pip install
	@scripts/wheel

site: build ## the documentation as pages, in dist/site; needs mandoc and Python with mkdocs
	@scripts/site/build dist/site '$(TARGET)/release'

clean: ## remove what was built
	$(CARGO) clean
	rm -rf dist demo-out replicate-out
