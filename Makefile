# `make help` lists the targets. `make run` and `make test` set up all they need by themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash

MCPMESH_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mcpmesh
export MCPMESH_CACHE
FUZZ_SECONDS ?= 5

# .cargo/config.toml asks for mold; RUSTFLAGS overrides it where mold could not be installed.
without_mold = $(shell command -v mold >/dev/null || [ "$$(uname -sm)" != "Linux x86_64" ] || \
	echo "RUSTFLAGS='-Ctarget-feature=+crt-static -Clink-arg=-fuse-ld=bfd'")
CARGO = $(without_mold) cargo

.PHONY: build cluster cluster-down help setup fmt fmt-check lint generate check-generated unit e2e tier1 tier2 tier3 fuzz test run bench bench-mesh images sbom

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## /{ printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing to build and test (a moment when all is there)
	@.ci/setup.sh

run: ## Serve manifests/quickstart: one endpoint over two real MCP servers, until Ctrl-C
	@CARGO="$(CARGO)" manifests/quickstart/run.sh $(RUN_ARGS)

test: ## Everything that CI runs, with a summary
	@.ci/test.sh

unit: ## All cargo tests but for those on clusters: unit, golden, property, conformance, real clients
	$(CARGO) test --locked --workspace --no-fail-fast

lint: ## clippy, rustdoc and cargo-deny, warnings are errors
	$(CARGO) clippy --locked --workspace --all-targets --test tier1 --test tier2 --test tier3 -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items --quiet
	$(MCPMESH_CACHE)/tools/bin/cargo-deny --all-features --locked check bans licenses sources

# The fuzz targets are workspaces of their own.
format = cargo fmt --all $(1) && cargo fmt --manifest-path proxy/fuzz/Cargo.toml $(1) && \
	cargo fmt --manifest-path compiler/fuzz/Cargo.toml $(1)

fmt: ## Format the code
	$(call format)

fmt-check: ## Fail where code is not formatted
	$(call format,--check)

generate: ## Write manifests/crds from the Rust types, manifests/install.yaml from the chart
	$(CARGO) run --locked --quiet -p mcpmesh-crds --bin crdgen
	.ci/chart.sh

check-generated: ## Fail where generated files differ from what their sources make
	@$(CARGO) build --locked --quiet --workspace --bins
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && \
	"$${CARGO_TARGET_DIR:-target}/$$(rustc --print host-tuple)/debug/crdgen" "$$made/manifests/crds" && \
	.ci/chart.sh "$$made" && \
	diff -ru manifests/crds "$$made/manifests/crds" && \
	diff -u manifests/install.yaml "$$made/manifests/install.yaml" && \
	diff -ru charts/mcpmesh/files/crds "$$made/charts/mcpmesh/files/crds" || \
	{ echo "run 'make generate' and commit the result"; exit 1; }

e2e: ## The tests on real Kubernetes clusters, of every tier, and a small W7 and W8 (root; `make test` runs tiers 1 and 2)
	@.ci/test.sh e2e

build: ## Build what the tests run
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --no-run
	$(CARGO) test --locked --workspace --test tier1 --test tier2 --no-run

tier1 tier2 tier3: ## The tests on a real API server, on a cluster with one node, with two (the latter: root)
	$(CARGO) build --locked --workspace --bins
	$(CARGO) test --locked --workspace --test $@ --no-fail-fast

cluster: setup ## Start a Kubernetes cluster with the mesh and the quickstart in it (root), until cluster-down
	$(CARGO) build --locked --bins -p mcpmesh-operator -p mcpmesh-proxy -p mcpmesh-cli
	@CLUSTER_NAME=mesh e2e/cluster/mesh demo "$${CARGO_TARGET_DIR:-target}/$$(rustc --print host-tuple)/debug"

cluster-down: ## Remove that cluster
	@CLUSTER_NAME=mesh e2e/cluster/cluster down

fuzz: ## Run every fuzz target for FUZZ_SECONDS
	.ci/fuzz.sh $(FUZZ_SECONDS)

images: ## Build the images of operator and proxy for this platform into target/images (buildah)
	.ci/images.sh

sbom: ## List what is in each program, as CycloneDX, into target/sbom
	.ci/sbom.sh

bench: setup ## Measure against nginx on the same hop, write docs/benchmarks.md
	CARGO="$(CARGO)" e2e/bench/run.sh

bench-mesh: ## Run W7 and W8 over 300 servers: fails on failed requests and needless writes, never on time
	CARGO="$(CARGO)" MCPMESH_BENCH_PROFILE=debug e2e/bench/run.sh --only W7,W8 --scale 0.03 --repetitions 1 --out -
