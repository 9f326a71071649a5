# `make` alone prints what there is. Everything that is installed lands outside the clone (scripts/setup).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

include scripts/versions.env

# Said after -race and before the packages, for example GOTESTFLAGS='-v -run Switchover'.
GOTESTFLAGS ?=
FUZZTIME ?= 20s

# Of chaos: words, with spaces or commas. Without seeds there are three of the moment, which are printed.
CHAOS_STORES ?= etcd consul zookeeper
CHAOS_SEEDS ?=
CHAOS_TIME ?= 10m

# What a user's own program imports builds where that program is built.
CROSS := linux darwin windows
CROSS_PACKAGES := ./dcs/... ./patroni/... ./pooler/... ./envoyconf/... ./topology/...

# Modules that use this one as anybody's does. They are not part of ./... here.
CONSUMERS := test/light test/consumer

.PHONY: help demo setup test chaos lint fmt tidy cross bench fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo: setup ## start a whole stack on this machine, switch over, kill the primary, show what the clients saw
	@export PGCONVOY_HOME="$$(scripts/setup --print-home)"; go run ./examples/quickstart

setup: ## install PostgreSQL, Patroni, PgBouncer and Envoy, once (silent when all is there)
	@scripts/setup

# -p=4: the tests of the stores wait most of the time. -p=1 is for one stack at a time.
test: ## every test, with real servers and the race detector; nothing may be skipped for want of a program
	@scripts/setup --tests
	@export PGCONVOY_HOME="$$(scripts/setup --print-home --tests)" PGCONVOY_REQUIRE=1; \
	  stacks="$$(go list ./topology/local ./topology/topologytest ./examples/...)"; \
	  go test -race -count=1 -timeout=20m -p=4 $(GOTESTFLAGS) $$(go list ./... | grep -vxF "$$stacks"); \
	  go test -race -count=1 -timeout=20m -p=1 $(GOTESTFLAGS) $$stacks; \
	  for m in $(CONSUMERS); do go -C "$$m" test -race -count=1 -timeout=20m -p=1 $(GOTESTFLAGS) ./...; done

chaos: ## every fault under load, the long ones too, then CHAOS_TIME of faults at random for each of CHAOS_SEEDS, on CHAOS_STORES
	@scripts/setup --tests
	@export PGCONVOY_HOME="$$(scripts/setup --print-home --tests)" PGCONVOY_REQUIRE=1 PGCONVOY_CHAOS=1; \
	  export CHAOS_STORES='$(CHAOS_STORES)' CHAOS_SEEDS='$(CHAOS_SEEDS)' CHAOS_TIME='$(CHAOS_TIME)'; \
	  go test -race -count=1 -timeout=24h -v -run '^(TestMatrix|TestChaos)$$' $(GOTESTFLAGS) ./topology/topologytest

lint: ## formatting, vet, golangci-lint (the arrows between the packages too), every go.mod, cross-builds
	@bin="$$(scripts/setup --lint-tools)"; \
	  bad="$$("$$bin/gofumpt-$(GOFUMPT_VERSION)" -l .)"; \
	  if [[ -n $$bad ]]; then printf 'not formatted (make fmt):\n%s\n' "$$bad" >&2; exit 1; fi; \
	  for m in . $(CONSUMERS); do \
	    (cd "$$m"; go vet ./...; "$$bin/golangci-lint-$(GOLANGCI_LINT_VERSION)" run ./...; go mod tidy -diff); \
	  done
	@$(MAKE) --no-print-directory cross

fmt: ## format all Go files
	@bin="$$(scripts/setup --lint-tools)"; "$$bin/golangci-lint-$(GOLANGCI_LINT_VERSION)" fmt ./...

tidy: ## bring every go.mod and go.sum up to date, this one first: the others follow it
	@for m in . $(CONSUMERS); do go -C "$$m" mod tidy; done

cross: ## build the packages that applications import for other systems
	@for os in $(CROSS); do \
	  echo "cross: $$os/amd64"; \
	  GOOS=$$os GOARCH=amd64 go build $(CROSS_PACKAGES); \
	done

bench: ## every benchmark, once, with the real stores
	@scripts/setup --stores
	@export PGCONVOY_HOME="$$(scripts/setup --print-home --stores)"; go test -run '^$$' -bench . -benchmem -timeout=30m ./...

fuzz: ## every fuzz target for FUZZTIME (20s)
	@list="$$(go test -list '^Fuzz' ./...)"; \
	  awk '/^Fuzz/ { name[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, name[i] } /^(ok|\?)/ { n = 0 }' <<<"$$list" | \
	  while read -r package target; do \
	    echo "fuzz: $$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	  done

clean: ## remove what builds and tests leave in the clone; the installed programs stay (scripts/setup --print-home)
	@rm -f quickstart convoy *.test *.out *.prof
	@go clean -testcache
