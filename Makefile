# p8s. `make up` runs a cluster, `make test` tests it; both bring what they need. IMAGE, KUBERNETES and P8S_* are settings.
# Minors of Kubernetes, the newest last: it is the default.
MINORS := $(shell cd image/components/kubernetes && ls -d [0-9]* | sort -V)
tag = p8s:$(if $(filter $(lastword $(MINORS)),$1),latest,$1)
KUBERNETES ?= $(lastword $(MINORS))
IMAGE ?= $(call tag,$(KUBERNETES))
FULL_IMAGE ?= p8s:full$(if $(filter $(lastword $(MINORS)),$(KUBERNETES)),,-$(KUBERNETES))
export IMAGE KUBERNETES FULL_IMAGE
PYTHON = .venv/bin/python
.PHONY: help engine image image-full up down check test test-faults test-minors test-vm conformance conformance-images soak bench bench-addons bench-edits bench-peers lock bump outdated clean
.DEFAULT_GOAL = help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | column -t -s: -l 2

engine: ## a docker engine, where none answers and this is a Debian machine
	@scripts/engine.sh

image: engine ## build $(IMAGE)
	@scripts/build-image.sh

image-full: image ## build p8s:full, the same with every add-on
	@FULL=1 scripts/build-image.sh

up: image ## the default cluster, ready
	@P8S_IMAGE=$(IMAGE) scripts/up.sh

down: ## stop it; its state is kept in the volume p8s_state
	docker compose down

check: .venv/ready ## lint and strict types
	@scripts/stage.sh lint .venv/bin/ruff check
	@scripts/stage.sh format .venv/bin/ruff format --check
	@scripts/stage.sh types .venv/bin/mypy

test: image-full conformance-images check ## everything: lint, types, unit, contract and cluster tests on the real image
	$(PYTHON) -m pytest --numprocesses=2 tests/unit tests/contract
	$(PYTHON) -m pytest tests/cluster tests/faults

test-faults: image .venv/ready ## every fault FAULT_ROUNDS (20) times; build/faults.md has the times
	FAULT_ROUNDS=$(or $(FAULT_ROUNDS),20) $(PYTHON) -m pytest tests/faults

# Starts from both contents of etcd, workloads and their network, and the upgrade from the minor before.
SMOKE = tests/cluster/test_seed.py tests/cluster/test_workloads.py tests/cluster/test_versions.py
test-minors: $(MINORS:%=smoke-%) ## what tells most of the cluster tests, on every minor; builds the images
smoke-%: engine .venv/ready
	@IMAGE=$(call tag,$*) KUBERNETES=$* scripts/build-image.sh
	IMAGE=$(call tag,$*) $(PYTHON) -m pytest $(SMOKE)

test-vm: image-full ## on a stock Debian with systemd and cgroup v2, in a virtual machine; TESTS: what pytest is given there
	tests/vm/run.sh $(TESTS)

conformance-images: image .venv/ready ## what Kubernetes' own tests run in and ask for: 15 minutes once, then seconds
	@scripts/stage.sh conformance-images $(PYTHON) -m tests.conformance --build

conformance: image .venv/ready ## Kubernetes' own conformance tests, all that one node can run; MINUTES=55: so long, then again
	$(PYTHON) -m tests.conformance $(if $(MINUTES),--minutes=$(MINUTES))

soak: image .venv/ready ## SOAK_MINUTES (30) of pods that come and go: what grows; docs/soak.md has a run
	$(PYTHON) -m tests.soak --minutes=$(or $(SOAK_MINUTES),30)

bench: image .venv/ready ## N (7) starts, stops and restarts, measured; STARTS=50: so many more starts in a row
	$(PYTHON) -m tests.bench $(if $(N),--runs=$(N)) $(if $(STARTS),--starts=$(STARTS))

bench-addons: image-full .venv/ready ## N (3) times each add-on: seconds until usable, memory, size; docs/addons.md has a run
	$(PYTHON) -m tests.bench.addons $(if $(N),--runs=$(N))

bench-edits: image-full .venv/ready ## N (7) edits, each to a new pod: by docker push and by p8s load
	$(PYTHON) -m tests.bench.edits $(if $(N),--runs=$(N))

bench-peers: image .venv/ready ## N (3) starts and 100 pods in turns with kubeadm, and kind, k3d, minikube where installed
	$(PYTHON) -m tests.bench.peers $(if $(N),--runs=$(N))

.venv/ready: requirements-dev.txt pyproject.toml
	@scripts/venv.sh

lock: ## raise the Python pins to the newest
	@scripts/lock.sh

bump: ## raise every minor of Kubernetes to its newest patch release; KUBERNETES=1.38: that one, new or not
	@scripts/bump.sh $(if $(filter file,$(origin KUBERNETES)),,$(KUBERNETES))

outdated: .venv/ready ## pins with a newer patch release, and known holes where a database answers
	@$(PYTHON) scripts/outdated.py --audit

clean: ## what a build or a test left in this tree
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache
