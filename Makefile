# The commands of the project; `make` lists them. Each does all that it needs: on Debian as root even the packages.
# Cargo is always asked for the whole workspace, filtered by target: with `-p` it would choose other features for the
# dependencies, and compile most of them (k8s-openapi takes minutes) once more.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
SLIPWAY_CACHE ?= $(HOME)/.cache/slipway
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(CARGO_TARGET_DIR)/$(HOST)/release
DEBUG := $(CARGO_TARGET_DIR)/$(HOST)/debug
E2E := $(DEBUG)/slipway-e2e
DENY_VERSION := 0.20.2
DENY := $(SLIPWAY_CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
# Non-empty when the user brings a cluster of their own: then none is started.
OWN_CLUSTER := $(KUBECONFIG)

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check
check: fmt clippy unit doc ## Formatting, lints, unit and property tests, docs: no root, no cluster

.PHONY: fmt
fmt: ## Check the formatting
	@echo "== formatting"
	cargo fmt --all --check

.PHONY: clippy
clippy: ## Lints
	@echo "== clippy"
	cargo clippy --workspace --all-targets --quiet -- -D warnings

.PHONY: unit
unit: ## Unit and property tests, doc tests
	@echo "== unit tests"
	cargo test --workspace --quiet

.PHONY: doc
doc: ## Build the API docs
	@echo "== docs"
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet

.PHONY: generate
generate: ## Write the generated files anew (CRD)
	cargo run --quiet -p slipway-crd --bin crdgen > charts/slipway/templates/crd.yaml

.PHONY: test
test: packages check deny test-cluster ## All tests: check, cargo deny, API and end-to-end tests on the embedded cluster

.PHONY: test-cluster
test-cluster: install cli-debug
	@echo "== API and end-to-end tests"
	SLIPWAY_E2E=1 $(E2E) env cargo test --workspace --test api_server --test cluster --test e2e --quiet -- --test-threads=3

.PHONY: e2e
e2e: install cli-debug ## The end-to-end tests alone; SCENARIO=name for one
	SLIPWAY_E2E=1 $(E2E) env cargo test --workspace --test e2e -- $(SCENARIO)

# The command line that the end-to-end tests run.
.PHONY: cli-debug
cli-debug:
	cargo build --quiet --workspace --bin slipway

.PHONY: cli
cli: ## Build the command line: slipway, and kubectl-slipway beside it
	cargo build --release --quiet --workspace --bin slipway
	ln -sf slipway $(RELEASE)/kubectl-slipway
	@echo "$(RELEASE)/slipway"
	@echo "put it and kubectl-slipway into your PATH"

.PHONY: e2e-bin
e2e-bin:
	@test -x $(E2E) || echo "== building slipway-e2e (minutes, the first time)"
	@cargo build --quiet --workspace --bin slipway-e2e

.PHONY: packages
packages: e2e-bin ## Say what this machine lacks; install it where that is possible (Debian, root)
	@$(E2E) packages

.PHONY: binaries
binaries:
	@echo "== operator and runner"
	cargo build --release --quiet --workspace --bin slipway-operator --bin slipway-runner

.PHONY: cluster-up
cluster-up: packages ## Start the embedded Kubernetes cluster (builds its programs the first time)
	@$(E2E) up

.PHONY: cluster-down
cluster-down: e2e-bin ## Stop it and leave nothing behind
	@$(E2E) down

.PHONY: cluster-status
cluster-status: e2e-bin ## Say what runs
	@$(E2E) status

.PHONY: images
images: binaries $(if $(OWN_CLUSTER),e2e-bin,cluster-up) ## Make the operator and runner images and load them into the nodes
	@$(E2E) images

.PHONY: install
install: images ## Install the chart into the cluster
	@$(E2E) base
	@$(E2E) install

.PHONY: demo
demo: install ## Build examples/hello on a real cluster and run the image
	@$(E2E) demo

.PHONY: deny
deny: $(DENY) ## Licences, bans and sources of the dependencies (offline)
	@echo "== cargo deny"
	cargo fetch --locked --quiet
	$(DENY) --offline --all-features check --hide-inclusion-graph bans licenses sources

.PHONY: deny-advisories
deny-advisories: $(DENY) ## The same for security advisories (needs the RustSec database)
	$(DENY) check advisories

$(DENY):
	@echo "== cargo deny $(DENY_VERSION): building it, once"
	env -u CARGO_TARGET_DIR cargo install cargo-deny --version $(DENY_VERSION) --locked --quiet --root $(SLIPWAY_CACHE)/tools/cargo-deny-$(DENY_VERSION)

.PHONY: conformance
conformance: ## Run Dockerfile cases through the engine: CASES=FILE, ONLY=id or area
	cargo run --quiet --release -p slipway-conformance -- $(CASES) $(if $(ONLY),--only $(ONLY))

.PHONY: conformance-cluster
conformance-cluster: install ## Run at least a hundred cases, from every area, as ImageBuilds: CASES=FILE, COUNT=n
	@echo "== conformance on the cluster"
	cargo build --quiet -p slipway-conformance
	$(E2E) env $(DEBUG)/slipway-conformance --cluster=$(or $(COUNT),110) --jobs 6 $(CASES) $(if $(ONLY),--only $(ONLY))

.PHONY: differential
differential: packages ## Build random Dockerfiles with BuildKit and with Slipway: SEED=first, COUNT=n
	@echo "== differential test"
	@$(E2E) tools --peer
	cargo build --quiet --release -p slipway-cli -p slipway-conformance
	$(RELEASE)/slipway-conformance diff --seed $(or $(SEED),1) --count $(or $(COUNT),100)

.PHONY: bench-local
bench-local: packages ## Compare local builds with BuildKit's: RUNS=n, ONLY=workload, KINDS=cold,noop,touch
	@echo "== local builds beside BuildKit"
	cargo build --quiet --release -p slipway-cli -p slipway-bench
	$(RELEASE)/slipway-bench --runs $(or $(RUNS),5) $(if $(ONLY),--only $(ONLY)) $(if $(KINDS),--kinds $(KINDS))

FUZZ_TARGETS := dockerfile expansion ignore unpack manifest config
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := $(SLIPWAY_CACHE)/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz

.PHONY: fuzz
fuzz: $(CARGO_FUZZ) ## Run each fuzz target for SECONDS=60 (TARGET=name for one); a finding is written to engine/fuzz/run/artifacts
	@for target in $(or $(TARGET),$(FUZZ_TARGETS)); do \
	  echo "== fuzz $$target"; \
	  mkdir -p $(CARGO_TARGET_DIR)/fuzz-corpus/$$target; \
	  (cd engine/fuzz/run && RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) run --fuzz-dir . --sanitizer none --target-dir $(CARGO_TARGET_DIR)/fuzz $$target \
	    $(CARGO_TARGET_DIR)/fuzz-corpus/$$target ../corpus/$$target -- -max_total_time=$(or $(SECONDS),60) -max_len=8192 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1); \
	done

$(CARGO_FUZZ):
	@echo "== cargo fuzz $(CARGO_FUZZ_VERSION): building it, once"
	env -u CARGO_TARGET_DIR cargo install cargo-fuzz --version $(CARGO_FUZZ_VERSION) --locked --quiet --root $(SLIPWAY_CACHE)/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)
