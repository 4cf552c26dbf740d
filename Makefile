# What can be done here; CI calls nothing else. Needs Go, and a C compiler for
# the race detector of `make test`.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: demo build lab test e2e faults nemesis mysql peers bench check generate wire man install layout package package-test clean help

GO       ?= go
DESTDIR  ?=
prefix   ?= /usr
FAULTS   ?= 10m
RUNS     ?= 10
DURATION ?= 10m
SEED     ?=
DEBIAN   ?= both
STEPS    ?=
BENCH    ?=
BIN      ?= bin
MADE     ?= bin
DIST     ?= dist
ARCHS    ?= amd64 arm64

# The same for every target, so that what one compiles the next finds. Only the
# race detector needs C.
export CGO_ENABLED = 0
export GOFLAGS    := $(strip $(shell $(GO) env GOFLAGS) -trimpath)

TOOL    = $(GO) tool -modfile=packaging/tools/go.mod
PACKAGE = $(GO) tool -modfile=packaging/tools/package.mod
BUF     = cd sdk/proto && $(GO) tool -modfile=../../packaging/tools/go.mod buf
MANUAL  = $(wildcard packaging/man/*.md)
EXAMPLES = $(wildcard examples/binlog/*.service examples/binlog/services.d/*.toml)
PLUGINS = $(patsubst plugins/%/main.go,%,$(wildcard plugins/*/main.go))
# Plugins that need agents of others on their node: each a package of its own,
# from its folder below contrib.
ADAPTERS = fence:fence-agents ocf:ocf
name     = $(firstword $(subst :, ,$1))
folder   = $(lastword $(subst :, ,$1))
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILD   = $(GO) build -ldflags '-s -w -X main.version=$(VERSION)'
RACE    = $(if $(filter 1,$(shell CGO_ENABLED= $(GO) env CGO_ENABLED)),-race)

demo: lab ## a cluster on this machine: the role moves three times; STAY=1 keeps it up
	bin/demo

build: ## bin/deputy and the plugins, for this machine's kind
	$(BUILD) -o $(BIN)/deputy ./supervisor/deputy
	$(foreach p,$(PLUGINS),$(BUILD) -o $(BIN)/deputy-plugin-$(p) ./plugins/$(p) &&) true
	$(foreach a,$(ADAPTERS),$(BUILD) -o $(BIN)/deputy-plugin-$(call name,$a) ./contrib/$(call folder,$a) &&) true

lab: build # what the demo runs besides deputy
	$(GO) build -o bin/ ./examples/demo ./examples/binlog

# One package at a time: two who keep leases up take a small machine from each other.
test: build ## everything that a change must pass
	$(GO) vet ./...
ifeq ($(RACE),)
	@echo 'no C compiler here: tests run without the race detector'; test "$${CI:-}" != true
endif
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) build $(RACE) ./...
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -shuffle=on -vet=off -p 1 -timeout 12m -v ./... | awk -f .ci/test.awk

# One seed, so that it says the same of the same tree; others are for `make nemesis`.
e2e: lab ## long: faults on a real etcd cluster for FAULTS=10m, the demo, and real hosts with systemd, as root
	CGO_ENABLED=$(if $(RACE),1,0) DEPUTY_FAULTS=$(FAULTS) $(GO) test $(RACE) -count=1 -vet=off -run FaultsOnEtcd -timeout 30m -v ./supervisor/etcd | awk -v whole=1 -f .ci/test.awk
	bin/demo
	DEPUTY_E2E=1 DEPUTY_E2E_SEED='$(or $(SEED),948294642)' $(GO) test -count=1 -vet=off -timeout 4h -v ./packaging/e2e | awk -v whole=1 -f .ci/test.awk

faults: ## each fault alone on real hosts, as root: RUNS=50 DEBIAN=trixie
	DEPUTY_E2E=1 DEPUTY_E2E_DEBIAN='$(DEBIAN)' DEPUTY_E2E_RUNS='$(RUNS)' \
		$(GO) test -count=1 -vet=off -timeout 24h -v -run '^TestFaults$$' ./packaging/e2e

nemesis: ## faults on real hosts at random, as root: DURATION=1h SEED=7 DEBIAN=trixie; STEPS=17-19 plays some again
	DEPUTY_E2E=1 DEPUTY_E2E_DEBIAN='$(DEBIAN)' DEPUTY_E2E_DURATION='$(DURATION)' DEPUTY_E2E_SEED='$(SEED)' DEPUTY_E2E_STEPS='$(STEPS)' \
		$(GO) test -count=1 -vet=off -timeout 9h -v -run '^TestNemesis$$' ./packaging/e2e

mysql: ## examples/mysql on real hosts, with clients that write without a pause, as root: RUNS=10 DEBIAN=trixie
	DEPUTY_E2E=1 DEPUTY_E2E_MYSQL=1 DEPUTY_E2E_DEBIAN='$(DEBIAN)' DEPUTY_E2E_RUNS='$(RUNS)' \
		$(GO) test -count=1 -vet=off -timeout 9h -v -run '^TestMySQL$$' ./packaging/e2e

peers: ## what keepalived and Pacemaker do when the same happens, on the same hosts, as root: RUNS=10
	DEPUTY_E2E=1 DEPUTY_E2E_PEERS=1 DEPUTY_E2E_RUNS='$(RUNS)' $(GO) test -count=1 -vet=off -parallel 3 -timeout 3h -v -run '^TestPeers$$' ./packaging/e2e

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

generate: ## the wire's code in Go and Python, from sdk/proto
	$(BUF) generate
	made=$$(mktemp); contrib/python/wire >$$made; cat $$made >contrib/python/deputy_plugin.py; rm $$made

wire: ## sdk/proto/wire.binpb, what later wires are compared with; at a release
	$(BUF) build -o wire.binpb

man: $(MANUAL:packaging/man/%.md=$(MADE)/man/%.gz) ## the manual pages, to bin/man

$(MADE)/man/%.gz: packaging/man/%.md
	@mkdir -p $(@D)
	$(PACKAGE) go-md2man -in $< | gzip -9n >$@

install: build man layout ## everything, to DESTDIR

# Where everything lies on a system; packages are made from the same.
layout: system = $(DESTDIR)$(prefix)/lib
layout: share  = $(DESTDIR)$(prefix)/share
layout:
	umask 022; \
	install -D -m 0755 $(BIN)/deputy '$(DESTDIR)$(prefix)/bin/deputy'; \
	install -D -m 0755 -t '$(DESTDIR)$(prefix)/libexec/deputy/plugins' $(PLUGINS:%=$(BIN)/deputy-plugin-%) $(foreach a,$(ADAPTERS),$(BIN)/deputy-plugin-$(call name,$a)); \
	install -D -m 0755 -t '$(DESTDIR)$(prefix)/libexec/deputy' packaging/scripts/reload-running packaging/scripts/retire; \
	install -D -m 0644 -t '$(system)/systemd/system' packaging/systemd/*.service packaging/systemd/*.target packaging/systemd/*.slice; \
	install -D -m 0644 -t '$(system)/systemd/system-preset' packaging/preset/90-deputy.preset; \
	install -D -m 0644 -t '$(system)/sysusers.d' packaging/sysusers/deputy.conf; \
	install -D -m 0644 -t '$(system)/tmpfiles.d' packaging/tmpfiles/deputy.conf; \
	for f in $(wildcard packaging/systemd/*.catalog); do install -D -m 0644 -t '$(system)/systemd/catalog' $$f; done; \
	for f in $(wildcard packaging/polkit/*.rules); do install -D -m 0644 -t '$(share)/polkit-1/rules.d' $$f; done; \
	for f in $(MANUAL:packaging/man/%.md=%); do install -D -m 0644 -t "$(share)/man/man$${f##*.}" $(MADE)/man/$$f.gz; done; \
	install -d '$(share)/bash-completion/completions' '$(share)/zsh/site-functions' '$(share)/fish/vendor_completions.d'; \
	$(MADE)/deputy completion bash >'$(share)/bash-completion/completions/deputy'; \
	$(MADE)/deputy completion zsh >'$(share)/zsh/site-functions/_deputy'; \
	$(MADE)/deputy completion fish >'$(share)/fish/vendor_completions.d/deputy.fish'; \
	install -D -m 0644 -t '$(share)/doc/deputy' README.md; \
	for kit in python/deputy_plugin.py shell/deputy.sh; do \
		install -D -m 0644 contrib/$$kit '$(share)/deputy/'$$kit; \
		install -D -m 0644 contrib/$${kit%/*}/README.md '$(share)/doc/deputy/'$${kit%/*}.md; \
	done; \
	install -D -m 0644 sdk/README.md '$(share)/doc/deputy/writing-a-plugin.md'; \
	for f in $(wildcard examples/porting/README.md examples/porting/*/*); do install -D -m 0644 $$f '$(share)/doc/deputy/'$$f; done; \
	install -D -m 0644 -t '$(share)/doc/deputy/examples' supervisor/etcd/testdata/roles.sh $(EXAMPLES); \
	for p in $(PLUGINS); do install -D -m 0644 plugins/$$p/README.md '$(share)/doc/deputy-plugins/'$$p.md; done; \
	$(foreach a,$(ADAPTERS),install -D -m 0644 contrib/$(call folder,$a)/README.md '$(share)/doc/deputy-plugin-$(call name,$a)/$(call name,$a).md' &&) true; \
	install -d '$(DESTDIR)/etc/deputy/services.d'; \
	install -d -m 0700 '$(DESTDIR)/etc/deputy/credentials'; \
	[ -e '$(DESTDIR)/etc/deputy/deputy.toml' ] || install -m 0644 -t '$(DESTDIR)/etc/deputy' packaging/config/deputy.toml

package: build man ## dist/*.deb and *.rpm for Debian and Red Hat, amd64 and arm64
	@mkdir -p $(DIST)
	for arch in $(ARCHS); do GOOS=linux GOARCH=$$arch $(MAKE) --no-print-directory build BIN=$(DIST)/linux-$$arch; done
	VERSION='$(VERSION)' GO='$(GO)' packaging/package '$(DIST)' '$(ARCHS)' '$(MADE)'

package-test: ## the packages twice, compared, judged, installed, upgraded and removed
	DEPUTY_PACKAGES=1 $(GO) test -count=1 -timeout 28m -v ./packaging/packages

clean: ## away with what was built here
	rm -rf bin dist

help: ## this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
