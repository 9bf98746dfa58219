# `make help` lists what there is. CLUSTER=existing (with KUBECONFIG or KUBE_CONTEXT, and IMAGE=) takes a cluster of yours instead of the rig's.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check cluster cluster-down image gen e2e disaster bench conformance mutants lock cli clean

CLUSTER ?= rig
K ?=
WORKERS ?= 4
RIG := tests/rig/rig
VENV := build/venv
PYTHON := $(VENV)/bin/python
PYTEST := $(PYTHON) -m pytest
READY := $(VENV)/.ready
UV := build/uv/bin/uv
UPGRADE ?= --upgrade
LOCK = $(UV) pip compile -q $(UPGRADE) pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header
ARGS ?=
export CLUSTER IMAGE KUBE_CONTEXT
# Python and pytest keep what they compiled, outside the tree: half of a short test run is compiling.
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 14

demo: $(READY) ## a real backup and a real restore on a real Kubernetes, from nothing
	@$(PYTHON) -m tests.demo

test: $(READY) ## everything: check, then every suite on the real cluster
	@tests/rig/test.sh

check: $(READY) ## formatting, lint, types, layers, unit tests: under a minute
	@tests/rig/check.sh
	@$(PYTEST) tests/unit -q -n auto -p no:cacheprovider $(ARGS)

cluster: ## a one-node Kubernetes on this machine (root, Debian); kubeconfig: build/rig/kubeconfig
	@$(RIG) up

cluster-down: ## stops it; PURGE=1 also forgets its state
	@$(RIG) down $(if $(PURGE),--purge)

image: ## the operator's image, given to the cluster where that is up; PGDG=1: clients of every major, from apt.postgresql.org
	@tests/rig/operator-image.sh

gen: $(READY) ## generates derived files: CRDs, chart copies, references; GEN=--check only compares
	@$(PYTHON) tools/gen.py $(GEN)

e2e: $(READY) ## end-to-end tests alone; K=expression chooses
	@tests/rig/prepare.sh
	@command -v chromium >/dev/null || $(RIG) packages chromium
	@$(PYTEST) tests/e2e -n $(WORKERS) --dist loadgroup $(if $(K),-k '$(K)') $(ARGS)

disaster: $(READY) ## docs/disaster-recovery.md, word for word: destroys the rig's cluster and brings every database back from the bucket
	@tests/rig/prepare.sh
	@command -v aws >/dev/null || $(RIG) packages awscli
	@$(PYTEST) tests/disaster $(ARGS)

bench: $(READY) ## the demo's times, and the data plane against pg_dump
	@tests/rig/prepare.sh
	@command -v aws >/dev/null || $(RIG) packages awscli
	@PYTHONPATH=operator $(PYTHON) -m tests.bench $(ARGS)

conformance: $(READY) ## databases that nobody here wrote, by every way: docs/conformance.md; PART=cases|generated|regression MAJOR=15 SCHEMAS=2000 SEED=1
	@$(RIG) packages postgresql postgresql-client gcc libc6-dev dpkg-dev mmdebstrap debian-archive-keyring
	@[ -x build/rig/bin/versitygw ] || tests/rig/prepare.sh
	@PYTHONPATH=operator $(PYTHON) -m tests.conformance $(PART) --major $(or $(MAJOR),15) --schemas $(or $(SCHEMAS),2000) --seed $(or $(SEED),1) $(ARGS)

mutants: $(READY) ## makes small mistakes in the code, which unit tests should notice; ONLY=plan/cron (a path below operator/dbbackup), MINUTES=60, JOBS=
	@$(PYTHON) tools/mutants.py --minutes $(or $(MINUTES),60) $(if $(JOBS),--jobs $(JOBS)) $(ONLY)

lock: $(UV) ## newest versions that pyproject.toml allows, with their hashes; UPGRADE= keeps those that are locked
	@$(LOCK) --extra operator --extra console -o requirements/image.txt
	@$(LOCK) --all-extras -c requirements/image.txt $$(sed -n 's/^\([a-z0-9._-]*\).*==.*/--no-emit-package \1/p' requirements/image.txt) -o requirements/dev.txt
	@sed -i -e '1i -r image.txt' -e '/^# The following packages were excluded/,$$d' requirements/dev.txt

cli: $(READY) ## the kubectl plugin as one file: build/cli/kubectl-dbbackup
	@$(PYTHON) tools/single_file.py build/cli

clean: ## removes build/, the cluster with it
	@[ ! -d build/rig ] || $(RIG) down --purge
	@rm -rf build

$(READY): requirements/image.txt requirements/dev.txt
	@tests/rig/venv.sh $(VENV)

$(UV): | $(READY)
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip install -q --disable-pip-version-check uv
