# The work on bridge. Every target does its own set-up on a Debian machine that has a Swift toolchain.

PREFIX ?= /usr/local
DESTDIR ?=
SWIFT ?= swift
# How long the demo keeps both sides in sync before its application moves.
DEMO_SECONDS ?= 15
# Compilers and tests at a time.
JOBS ?= $(shell nproc)

.DEFAULT_GOAL := build
.PHONY: build setup demo demo-postgres test bench install clean

setup:
	@scripts/setup

build: setup
	$(SWIFT) build -c release --product bridge --jobs $(JOBS)

demo: build
	.build/release/bridge demo --seconds $(DEMO_SECONDS)

demo-postgres: build
	.build/release/bridge demo --postgres --seconds $(DEMO_SECONDS)

test: setup
	scripts/test --jobs $(JOBS)

bench: build
	python3 Benchmarks/catch_up.py --bridge .build/release/bridge

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 .build/release/bridge $(DESTDIR)$(PREFIX)/bin/bridge
	install -m 644 man/bridge.1 $(DESTDIR)$(PREFIX)/share/man/man1/bridge.1
	.build/release/bridge --generate-completion-script bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/bridge
	.build/release/bridge --generate-completion-script zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_bridge
	.build/release/bridge --generate-completion-script fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/bridge.fish

clean:
	$(SWIFT) package clean
