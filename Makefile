# swarmd: "make up" starts a swarm on this machine, "make test" runs everything. "make help" lists the rest.
SHELL       := /bin/bash -o pipefail
BIN         := bin
SWARMD_ROOT ?= /var/lib/swarmd
COMMANDS    := swarmd apiserver controller-manager agent swarmctl
# What stands in for the images that the tutorial names, such as redis-3.0.6 for redis:3.0.6.
TUTORIAL    := alpine-latest redis-3.0.6 redis-3.0.7 redis-alpine nginx-latest nginx-alpine registry-2 stackdemo-latest
export CGO_ENABLED := 0
export SWARMD_ROOT
# Another user's checkout (sudo make up) has no commit to tell: git refuses, and the build must not.
export GOFLAGS := -mod=readonly -buildvcs=$(shell git status >/dev/null 2>&1 && echo auto || echo false)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: build runtime $(BIN)/hello-1.tar ## Start a swarm on this machine and run the example service (root)
	@deploy/up $(BIN)

.PHONY: down
down: ## Stop it and leave nothing behind (root)
	@deploy/down $(BIN)

.PHONY: build
build: ## Build the daemons and swarmctl into bin/
	@mkdir -p $(BIN)
	go build -o $(BIN)/ $(addprefix ./cmd/,$(COMMANDS))

.PHONY: runtime
runtime: ## Build the pinned containerd, its shim and runc into bin/runtime
	@$(MAKE) --no-print-directory -C tools BIN=$(CURDIR)/$(BIN)/runtime

$(BIN)/hello-%.tar: deploy/examples/hello/main.go deploy/examples/image/main.go
	@mkdir -p $(BIN)
	go build -ldflags "-s -w -X main.version=$*" -o $(BIN)/hello ./deploy/examples/hello
	go run ./deploy/examples/image $(BIN)/hello hello:$* $@

.PHONY: test
test: lint unit runtime build e2e-images ## Run everything that a machine like CI's can run (root)
	@test/lanes
	go test -count=1 ./test/sim -seeds 1000
	$(MAKE) --no-print-directory bench-scale NODES=50 TASKS=2000
	$(MAKE) --no-print-directory churn ROUNDS=60

.PHONY: unit
unit: ## Run the tests that need no root, in two minutes or less
	go test -short $$(go list ./... | grep -vE '/(runtime/containerd|netplugin|test/e2e)')

.PHONY: crash
crash: ## Kill the daemon before each change of its disk, one after the other, and go on (root)
	go test -count=1 -v -timeout 40m ./cmd/internal/daemon -run TestCrash

.PHONY: e2e-images
e2e-images: $(BIN)/hello-1.tar $(BIN)/hello-2.tar $(BIN)/etcd $(TUTORIAL:%=$(BIN)/tutorial-%.tar)

# What the images start where nothing is said.
$(BIN)/tutorial-registry-2.tar: ARG := registry
$(BIN)/tutorial-stackdemo-latest.tar: ARG := counter

$(BIN)/workload: $(wildcard test/e2e/workload/*.go)
	go build -ldflags "-s -w" -o $@ ./test/e2e/workload

$(BIN)/tutorial-%.tar: $(BIN)/workload deploy/examples/image/main.go
	go run ./deploy/examples/image $(BIN)/workload $(subst -,:,$*) $@ $(ARG)

$(BIN)/etcd: go.mod # somebody's own etcd, for the parts that run alone
	go build -o $@ go.etcd.io/etcd/server/v3

.PHONY: e2e
e2e: build runtime e2e-images ## Run the real daemons in namespaces: make e2e RUN=TestMainJob (root)
	go test -count=1 -v -timeout 30m ./test/e2e/... -run '$(RUN)'

.PHONY: lossy
lossy: build runtime e2e-images ## What TestNoRequestLost loses with a daemon that stops tasks at once, to see that it would (root)
	go build -tags nodrain -o $(BIN)/nodrain/swarmd ./cmd/swarmd
	ln -sfn ../runtime $(BIN)/nodrain/runtime
	go test -count=1 -v -timeout 30m ./test/e2e -run 'TestNoRequestLost$$' -args -lossy -swarmd $(CURDIR)/$(BIN)/nodrain/swarmd

.PHONY: lab
lab: build runtime e2e-images ## Bring up a swarm of several hosts on this machine to play with: make lab HOSTS=5 (root)
	go build -o $(BIN)/lab ./test/e2e/lab/command
	@$(BIN)/lab up -hosts $(or $(HOSTS),3)

.PHONY: lab-down
lab-down: ## End it and leave nothing behind (root)
	@go build -o $(BIN)/lab ./test/e2e/lab/command
	@$(BIN)/lab down

.PHONY: faults
faults: build runtime e2e-images ## Random faults under load on five hosts: make faults ROUNDS=200, or SEED=7 FIRST=42 ROUNDS=1 to do one again (root)
	go test -count=1 -v -timeout 120m ./test/e2e -run 'TestFaults$$' -args -rounds $(or $(ROUNDS),20) -seed $(or $(SEED),0) -first $(or $(FIRST),0)

.PHONY: chaos
chaos: build runtime e2e-images ## Random faults under networks that tasks talk over all the time: make chaos ROUNDS=200 SEED=7 (root)
	go test -count=1 -v -timeout 120m ./test/e2e -run 'TestNetworkChaos$$' -args -rounds $(or $(ROUNDS),20) -seed $(or $(SEED),0) -first $(or $(FIRST),0)

.PHONY: sim
sim: ## Simulate a cluster: make sim SEEDS=10000, or SEED=7 to replay one
	go test -count=1 -timeout 60m -v ./test/sim -run 'TestSim$$' -args -seed $(or $(SEED),0) -seeds $(or $(SEEDS),10000)

.PHONY: fuzz
fuzz: ## Fuzz every decoder and parser: make fuzz TIME=30s
	@test/fuzz $(or $(TIME),20s)

.PHONY: bench-scale
bench-scale: ## Hollow nodes on the real store, API server and rules: make bench-scale NODES=1000 TASKS=100000
	go run ./test/scale -nodes $(or $(NODES),1000) -tasks $(or $(TASKS),100000)

.PHONY: churn
churn: ## Nodes and services that come and go, and memory and goroutines that stay level: make churn ROUNDS=1000
	go run ./test/scale -limit 60m -churn $(or $(ROUNDS),1000)

.PHONY: bench-start
bench-start: build runtime e2e-images ## Time to running against a bare containerd loop, in one run (root)
	go build -o $(BIN)/bench-start ./test/bench/start
	go test -count=1 -v -timeout 20m ./test/e2e -run TestMainJobStartBench -args -bench-start

.PHONY: bench-net
bench-net: build runtime e2e-images ## Tasks that talk to each other, beside plain links and a network as Docker lays it out, in one run (root)
	go test -count=1 -v -timeout 20m ./test/e2e -run 'TestNetBench$$' -args -bench-net

.PHONY: bench-programming
bench-programming: ## How long networks and names take to follow: 3 nodes, 50 services that change twice a second (root)
	go build -o $(BIN)/bench-programming ./test/bench/programming
	$(BIN)/bench-programming -pace $(or $(PACE),500ms)

.PHONY: bench-endpoints
bench-endpoints: ## What one change of 10,000 endpoints costs a node, in all (root)
	go test -run xxx -bench . -benchtime 200x ./test/bench/endpoints

.PHONY: lint
lint: ## gofmt, golangci-lint and the house rules
	@test -z "$$(gofmt -l cmd pkg test deploy)" || { gofmt -l cmd pkg test deploy; echo "run gofmt -w on these"; exit 1; }
	@$(MAKE) --no-print-directory $(BIN)/golangci-lint
	$(BIN)/golangci-lint run ./...

$(BIN)/golangci-lint: tools/lint/go.mod
	@mkdir -p $(BIN)
	cd tools/lint && go build -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
