# p8s. `make up` runs a cluster, `make test` tests it; both bring what they need. IMAGE, KUBERNETES and P8S_* are settings.
IMAGE ?= p8s:latest
KUBERNETES ?= 1.37
export IMAGE KUBERNETES
PYTHON = .venv/bin/python
.PHONY: help engine image up down check test test-faults soak bench bench-peers lock outdated clean
.DEFAULT_GOAL = help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | column -t -s: -l 2

engine: ## a docker engine, where none answers and this is a Debian machine
	@scripts/engine.sh

image: engine ## build $(IMAGE)
	@scripts/build-image.sh

up: image ## the default cluster, ready
	@P8S_IMAGE=$(IMAGE) scripts/up.sh

down: ## stop it; its state is kept in the volume p8s_state
	docker compose down

check: .venv/ready ## lint and strict types
	@scripts/stage.sh lint .venv/bin/ruff check
	@scripts/stage.sh format .venv/bin/ruff format --check
	@scripts/stage.sh types .venv/bin/mypy

test: image check ## everything: lint, types, unit, contract and cluster tests on the real image
	$(PYTHON) -m pytest

test-faults: image .venv/ready ## every fault FAULT_ROUNDS (20) times; build/faults.md has the times
	FAULT_ROUNDS=$(or $(FAULT_ROUNDS),20) $(PYTHON) -m pytest tests/faults

soak: image .venv/ready ## SOAK_MINUTES (30) of pods that come and go: what grows; docs/soak.md has a run
	$(PYTHON) -m tests.soak --minutes=$(or $(SOAK_MINUTES),30)

bench: image .venv/ready ## N (7) starts, stops and restarts, measured; STARTS=50: so many more starts in a row
	$(PYTHON) -m tests.bench $(if $(N),--runs=$(N)) $(if $(STARTS),--starts=$(STARTS))

bench-peers: image .venv/ready ## N (3) starts and 100 pods in turns with kubeadm, and kind, k3d, minikube where installed
	$(PYTHON) -m tests.bench.peers $(if $(N),--runs=$(N))

.venv/ready: requirements-dev.txt pyproject.toml
	@scripts/venv.sh

lock: ## raise the Python pins to the newest
	@scripts/lock.sh

outdated: .venv/ready ## pins with a newer patch release, and known holes where a database answers
	@$(PYTHON) scripts/outdated.py --audit

clean: ## what a build or a test left in this tree
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache
