# What can be done here; CI calls nothing else. Needs Go, and a C compiler for
# the race detector of `make test`.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: demo build lab test e2e bench check generate wire install package clean help

GO      ?= go
DESTDIR ?=
prefix  ?= /usr
FAULTS  ?= 10m
BENCH   ?=

# The same for every target, so that what one compiles the next finds. Only the
# race detector needs C.
export CGO_ENABLED = 0
export GOFLAGS    := $(strip $(shell $(GO) env GOFLAGS) -trimpath)

TOOL    = $(GO) tool -modfile=packaging/tools/go.mod
BUF     = cd sdk/proto && $(GO) tool -modfile=../../packaging/tools/go.mod buf
PLUGINS = $(patsubst plugins/%/main.go,%,$(wildcard plugins/*/main.go))
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
RACE    = $(if $(filter 1,$(shell CGO_ENABLED= $(GO) env CGO_ENABLED)),-race)

demo: lab ## a cluster on this machine: the role moves three times; STAY=1 keeps it up
	bin/demo

build: ## bin/deputy and the plugins, for this machine's kind
	$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/deputy ./supervisor/deputy
	$(foreach p,$(PLUGINS),$(GO) build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/deputy-plugin-$(p) ./plugins/$(p) &&) true

lab: build # what the demo runs besides deputy
	$(GO) build -o bin/ ./examples/demo ./examples/binlog

test: build ## everything that a change must pass
	$(GO) vet ./...
ifeq ($(RACE),)
	@echo 'no C compiler here: tests run without the race detector'; test "$${CI:-}" != true
endif
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -shuffle=on -vet=off -p 2 -timeout 8m -v ./... | awk -f .ci/test.awk

e2e: lab ## long: faults on a real etcd cluster for FAULTS=10m, and the demo
	CGO_ENABLED=$(if $(RACE),1,0) DEPUTY_FAULTS=$(FAULTS) $(GO) test $(RACE) -count=1 -vet=off -run FaultsOnEtcd -timeout 30m -v ./supervisor/etcd
	bin/demo
	@echo 'e2e: not yet: real hosts with real systemd (nspawn); they come with the systemd units'

bench: lab ## how fast the role moves here: the figures of README.md; BENCH=-short for a glance
	bin/demo bench $(BENCH)

check: ## linters, format, known vulnerabilities, tidy modules
	$(GO) vet ./...
	$(TOOL) golangci-lint run
	@echo '$(TOOL) gofumpt -l .'; unformatted=$$($(TOOL) gofumpt -l .); echo "$${unformatted:-all formatted}"; test -z "$$unformatted"
	$(GO) mod tidy -diff
	$(BUF) lint
	$(BUF) breaking --against wire.binpb
	.ci/generated
	.ci/vulncheck $(TOOL) govulncheck

generate: ## the wire's Go code, from sdk/proto
	$(BUF) generate

wire: ## sdk/proto/wire.binpb, what later wires are compared with; at a release
	$(BUF) build -o wire.binpb

install: build ## bin/deputy and the plugins to DESTDIR/usr
	install -D -m 0755 bin/deputy '$(DESTDIR)$(prefix)/bin/deputy'
	install -D -m 0755 -t '$(DESTDIR)$(prefix)/libexec/deputy/plugins' $(PLUGINS:%=bin/deputy-plugin-%)
	@echo 'install: the binaries alone; units, man pages and completions come with the packages'

package: ## packages for Debian and Red Hat
	@echo 'package: not yet: deb and rpm from packaging/nfpm.yaml come once there are units to package'

clean: ## away with what was built here
	rm -rf bin dist

help: ## this
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
