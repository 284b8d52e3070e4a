# Only Go, make and git are needed for build, guests, demo and test; what more
# a target wants, it says.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
DATA    ?= bin/demo-data

export CGO_ENABLED ?= 0

# Of a package's tests, or of a virtual machine: only what hangs takes as long, on a
# machine however slow. Some build programs first.
PATIENCE = 15m

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/wasmpod
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/wasmpod ./cmd/wasmpod

.PHONY: guests
guests: build ## Build the example guests into wasm-examples/bin, and images of them into bin/images
	wasm-examples/build.sh
	wasm-examples/images.sh bin/wasmpod bin

.PHONY: demo
demo: build ## Build wasmpod and a guest, and run a pod: an init container, two containers, a shared volume
	wasm-examples/build.sh busybox
	wasm-examples/images.sh bin/wasmpod bin
	bin/wasmpod run --data-dir $(DATA) --status-file $(DATA).json wasm-examples/demo/pod.yaml
	@echo; echo "The final status of every container is in $(DATA).json:"
	@grep -E '"phase"|"exitCode"' $(DATA).json

.PHONY: test
test: ## Run the tests
	$(GO) test -timeout $(PATIENCE) ./...
	cd wasm-examples && $(GO) test -timeout $(PATIENCE) ./...

.PHONY: semantics
semantics: ## Run the tests, and print which rules of docs/semantics.md the passing ones name
	$(GO) test -json -timeout $(PATIENCE) ./... | $(GO) run ./test/spec/semantics

.PHONY: race
race: ## Run the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -short -timeout $(PATIENCE) ./...

.PHONY: lint
lint: ## gofmt, vet and staticcheck, for every platform
	@files=$$(gofmt -l cmd runtime podnet probes cgroup test wasm-examples); \
	if [ -n "$$files" ]; then echo "not formatted by gofmt:" $$files; exit 1; fi
	$(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	$(GO) tool staticcheck ./...
	cd wasm-examples && GOOS=wasip1 GOARCH=wasm $(GO) vet ./...

.PHONY: cross
cross: ## Build for every platform that is supported
	GOOS=linux GOARCH=amd64 $(GO) build -o /dev/null ./cmd/wasmpod
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/wasmpod
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/wasmpod

# The packages with code that depends on the processor or on the layout of
# system calls' results.
ARM64_PACKAGES = ./runtime/wasm/... ./runtime/wasip1 ./runtime/sandbox/...
.PHONY: test-arm64
test-arm64: ## Run the tests that depend on the processor for arm64 (needs qemu-aarch64-static)
	TEST_EMULATOR=qemu GOARCH=arm64 $(GO) test -short -timeout $(PATIENCE) -exec qemu-aarch64-static $(ARM64_PACKAGES)

.PHONY: test-vm
test-vm: ## Run the tests of cgroups and BPF in virtual machines (needs qemu-system-x86_64 and systemd; gets a kernel by apt-get); ARCH=arm64 for one of that kind (needs qemu-system-aarch64), SHORT=1 in a minute
	$(GO) run ./test/vm -timeout $(PATIENCE) $(if $(ARCH),-arch $(ARCH) -release trixie $(if $(SHORT),$(VM_SHORT),$(VM_TESTS)),$(VM_TESTS))
	$(if $(ARCH),,$(GO) run ./test/vm -timeout $(PATIENCE) -systemd ./cgroup/cgroupfs=DelegatedBySystemd)

VM_TESTS = ./cgroup/... './runtime=OOMKills/watched|SocketWall|OutsideTraffic|KernelAgrees'
# Loads and runs every program of the kernel's that is committed. That of arm64 runs
# fentry and LSM programs since 6.4, which is newer than what older releases have.
VM_SHORT = './cgroup/bpf=RES05Quota|SpentRecord|Confinement|OOMKillIsAttributed' './cgroup/netwall=Connect|Listen|Counting'

.PHONY: test-promtool
test-promtool: ## Check the Prometheus rules of docs/ with promtool (without one: gets it by apt-get)
	test/promtool.sh

.PHONY: test-upstream
test-upstream: ## Compare our validation and defaults with upstream's code (builds it: minutes)
	cd test/upstream && $(GO) test -timeout $(PATIENCE) ./...

.PHONY: conformance
conformance: ## Build and run the programs of WASI_TESTSUITE, a checkout of wasi-testsuite, for preview 1 (needs clang, wasi-libc, and asc or npm)
	@test/conformance.sh "$(WASI_TESTSUITE)" $(PATIENCE)

FUZZTIME ?= 10m
.PHONY: fuzz
fuzz: ## Fuzz every parser and host function, for FUZZTIME each
	test/fuzz.sh $(FUZZTIME)

.PHONY: hostile
hostile: ## Run every bomb beside a guest that serves requests; SHORT=1 for less than a minute
	$(GO) test -count=1 -timeout 20m $(if $(SHORT),-short) -v -run TestHostile ./test/hostile -hostile

.PHONY: test-seeds
test-seeds: guests ## Run the manifests of wasm-examples/seeds in real time; SHORT=1 for those that take less than a minute
	$(GO) test -count=1 -timeout 20m $(if $(SHORT),-short) -v -parallel 30 -run TestSeeds ./test/seeds -seeds

.PHONY: soak
soak: guests ## Run pods of every shape for FOR (10m), many at a time, and see that nothing of them is left; SEED=n for one run again
	$(GO) test -count=1 -timeout 0 -v -run TestSoak ./test/soak -soak $(if $(filter command%,$(origin FOR)),$(FOR),10m) $(if $(SEED),-seed $(SEED))

.PHONY: test-gostd
test-gostd: build ## Run the tests of Go's own network packages in pods (minutes); SHORT=1 for the most important ones, TOOLCHAIN=go1.25.0 for those of another Go
	$(GO) run ./test/gostd $(if $(SHORT),-short) $(if $(TOOLCHAIN),-toolchain $(TOOLCHAIN))

FOR ?= 30s
.PHONY: test-clients
test-clients: guests ## Drive guests by curl, wrk and redis-benchmark for FOR each, and a real nginx by a guest (needs curl wrk redis-tools nginx-light)
	$(GO) test -count=1 -timeout 60m -v -run TestClients ./test/clients -clients -for $(FOR)

.PHONY: bench-probes
bench-probes: ## Probe 1,000 pods, over http and by exec, every second: lateness, CPU and memory
	$(GO) test -count=1 -timeout 5m -v -run TestBenchProbes ./runtime/podtest -podtest.probes 1000

BENCHTIME ?= 1s
.PHONY: bench
bench: ## Run the benchmarks, for BENCHTIME each
	$(GO) test -timeout 60m -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

.PHONY: bench-engine
bench-engine: ## Measure what safepoints cost: real programs and tight loops, against stock wazero
	$(GO) run ./test/bench/engine

.PHONY: bench-latency
bench-latency: ## Measure how prompt a process is that is full of busy guests, and what guests cost
	$(GO) run ./test/bench/latency

.PHONY: bench-limits
bench-limits: build ## Measure how exactly CPU time is accounted and limited, and what that costs (root for BPF); VM=1 in a virtual machine, on a machine that does nothing else, but for what that costs (needs what test-vm does; 4 minutes)
	$(GO) run $(if $(VM),./test/vm -timeout $(PATIENCE) $(VM_LIMITS),./test/bench/limits)

# An emulated machine says nothing about costs. It stops guests for long, and a debt of
# theirs takes a while to be paid.
comma = ,
VM_LIMITS = $(foreach part,tables guests memory,./test/bench/limits:-only$(comma)$(part)$(comma)-time$(comma)$(if $(filter guests,$(part)),10s,5s))

.PHONY: bench-net
bench-net: build ## Measure the network of a pod: two guests against the same programs over the kernel's loopback, and pinned (needs clang, wasi-libc, cc)
	$(GO) run ./test/bench/net

.PHONY: test-images
test-images: ## Exchange images with real registries, crane and skopeo (builds them: minutes; skopeo and docker-registry from Debian)
	cd test/images && $(GO) test -timeout 10m .

.PHONY: fault-images
fault-images: ## Kill processes that pull, load and remove images at 200 random points, and read the store each time
	cd test/images && $(GO) test -count=1 -timeout 20m -v -run TestKilledPulls . -images.kills 200

.PHONY: bench-images
bench-images: ## Measure pulling and unpacking a 200 MB image against crane export | tar x
	cd test/images && $(GO) test -count=1 -timeout 10m -v -run TestBenchPull . -images.bench

.PHONY: generate
generate: ## Make the files again that are made by programs (needs wat2wasm, clang-14, llvm-strip-14)
	$(GO) generate ./...

.PHONY: check
check: lint cross test race ## What CI runs on every change

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin wasm-examples/bin
