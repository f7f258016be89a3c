# Two commands from a clean clone: `make run` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 2000
ROUNDS ?= 3
PACKAGE ?= raft
SAMPLE ?= 200
CASES ?= 200
SEED ?= 1
MINUTES ?= 5
GENERATOR_NEEDS := cc=gcc /usr/include/nghttp2/nghttp2.h=libnghttp2-dev /usr/include/openssl/ssl.h=libssl-dev
RADOS_NEEDS := ceph-mon=ceph-mon ceph-osd=ceph-osd ceph=ceph-common
ENGINE_SOURCES := $(wildcard $(foreach kind,pyx pxd h,src/kvstore/_engine/*/*.$(kind) src/kvstore/_state/*.$(kind) src/kvstore/_service/*.$(kind) src/kvstore/_wire/*.$(kind) src/kvstore/_rados/*.$(kind)))

.DEFAULT_GOAL := help
.PHONY: help build run rados demo test test-rados test-asan test-tsan chaos crash-states fuzz integrity lint docs format stubs bench bench-gate mutants planted planted-engine etcd-suites simulate wheel wheels clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

# The steps of a build, each done again only when what it stands on has changed.
$(VENV)/.dependencies: pyproject.toml tools/check_prerequisites.sh
	@PYTHON="$(PYTHON)" sh tools/check_prerequisites.sh
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet "setuptools>=77" "Cython>=3.1" --group test
	@touch $@

$(VENV)/.built: $(VENV)/.dependencies setup.py $(ENGINE_SOURCES)
	@echo "building the engine (the first time takes a minute or two)"
	@mkdir -p build
	@$(if $(filter setup.py,$?),CYTHON_FORCE_REGEN=1) $(BIN)/python setup.py --quiet build_ext --inplace --parallel 2 $(if $(filter setup.py,$?),--force) > build/extensions.log 2>&1 \
		|| { cat build/extensions.log; exit 1; }
	@grep "^kvstore:" build/extensions.log || true
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[all]'
	@touch $@

$(VENV)/.lint-tools: pyproject.toml $(VENV)/.built
	$(BIN)/python -m pip install --quiet --group lint
	@touch $@

$(VENV)/.bench-tools: pyproject.toml $(VENV)/.built
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/.docs-tools: pyproject.toml $(VENV)/.built
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

$(VENV)/.mutation-tools: pyproject.toml $(VENV)/.built
	$(BIN)/python -m pip install --quiet --group mutation
	@touch $@

build: $(VENV)/.built ## build the engine and install kvstore into .venv

run: build ## start kvd, show real puts, gets and deletes against it, leave it serving
	@$(BIN)/python tools/demo.py run

rados: build ## start a RADOS cluster and a gateway, show a put, a get, a killed OSD and a get (1 minute)
	@sh tools/install_missing.sh $(RADOS_NEEDS)
	@$(BIN)/python -m tools.rados_demo

test-rados: build ## run the tests over a real RADOS cluster
	@sh tools/install_missing.sh $(RADOS_NEEDS)
	$(BIN)/python -m pytest tests/rados

demo: build ## the same, and exit
	@$(BIN)/python tools/demo.py demo

test: build ## run every test
	@PYTHON=$(BIN)/python tools/all_tests.sh

test-asan: build ## run the engine's tests with the address and undefined-behaviour sanitizers
	@PYTHON=$(BIN)/python tools/sanitized_tests.sh

test-tsan: build ## run the engine's threads with the thread sanitizer
	@PYTHON=$(BIN)/python tools/sanitized_tests.sh thread

lint: $(VENV)/.lint-tools ## format, lint, types, import rules, the engine's own rules, generated stubs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_engine_sources.py
	$(BIN)/python tools/generate_stubs.py --check
	$(BIN)/python -m pytest --quiet tests/unit/client/test_client_types.py tests/unit/engine/test_types.py

docs: $(VENV)/.docs-tools ## build the site of docs/ into build/site, to be read with or without a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python tools/docs_site.py build/site

format: $(VENV)/.lint-tools ## format the Python and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stubs: build ## generate the gRPC stubs anew from proto/
	$(BIN)/python tools/generate_stubs.py

bench: $(VENV)/.bench-tools ## run the benchmarks beside their peers
	@sh tools/install_missing.sh etcd=etcd-server etcdctl=etcd-client $(GENERATOR_NEEDS)
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-json=build/benchmarks.json
	$(BIN)/python -m benchmarks.engine > build/engine.md
	$(BIN)/python -m benchmarks.report build/engine.json build/benchmarks.json

bench-gate: build ## the acceptance gate: durable puts and gets of a real kvd, its leader killed; exit 1 when missed
	@sh tools/install_missing.sh cc=gcc
	@$(BIN)/python -m benchmarks.gate

chaos: build ## hurt five real kvd processes in every way, for a quarter of an hour (needs root)
	@[ "$$(id -u)" = 0 ] || { echo "make chaos needs root: it makes network namespaces and mounts a tmpfs"; exit 1; }
	@sh tools/install_missing.sh nft=nftables ip=iproute2 cc=gcc '/usr/lib/*/faketime/libfaketimeMT.so.1=libfaketime'
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

integrity: build ## damage files of every kind in every way, CASES=200 bytes of each file's payloads; JSON=FILE for a document
	$(BIN)/python -m tests.integrity --cases $(CASES) --seed $(SEED) $(if $(JSON),--json "$(JSON)")

fuzz: build ## fuzz every parser, the wire and kvd's calls with the sanitizers for MINUTES=5
	@PYTHON=$(BIN)/python tools/sanitized_tests.sh address,undefined --module tests.fuzz --minutes $(MINUTES)

mutants: $(VENV)/.mutation-tools ## run PACKAGE=raft's tests against SAMPLE=200 small changes of it (hours with SAMPLE=0)
	$(BIN)/python -m tests.mutation --package $(PACKAGE) --sample $(SAMPLE)

planted: build ## plant known bugs and count the simulated seeds until each is found
	$(BIN)/python -m tests.simulator.planted

planted-engine: build ## plant known bugs into the engine and run the tests that must find them
	$(BIN)/python -m tests.engine_planted

crash-states: build ## open N=20000 disks as power losses leave them, of a library and of a cluster's members
	$(BIN)/python -m tests.crash.states --states $(or $(N),20000)

etcd-suites: build ## run the suites of etcd's Python clients, copies of which are in SUITES=DIR, against kvd
	@test -n "$(SUITES)" || { echo "make etcd-suites SUITES=DIR: copies of python-etcd3 and aetcd, by these names"; exit 1; }
	@sh tools/install_missing.sh etcdctl=etcd-client
	$(BIN)/python -m tools.etcd_suites "$(SUITES)"

simulate: build ## simulate SEEDS=2000 clusters under faults
	$(BIN)/python -m tests.simulator --seeds $(SEEDS)

wheel: $(VENV)/.dependencies ## build a wheel into dist/, nghttp2 in it
	KVSTORE_BUNDLE=1 $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

wheels: $(VENV)/.built ## the sdist, and a manylinux wheel for each CPython from 3.11 on that is here, into dist/
	$(BIN)/python -m pip install --quiet --group release
	$(BIN)/python -m tools.build_wheels

clean: ## remove everything that was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find src -name '*.so' -delete
	find src/kvstore/_engine src/kvstore/_state src/kvstore/_service src/kvstore/_wire src/kvstore/_rados -name '*.cpp' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
