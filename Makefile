# What one does with mediafs while working on it. `make help` lists it all.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := bin/golangci-lint-$(GOLANGCI_VERSION)

# What is tested.
PACKAGES ?= ./...

# The tests that `make programs` runs: those of size, see integration/programs_test.go.
PROGRAMS := Fio|StressNG|Dbench|PostgresKeeps|SQLiteLoses|GitKeeps

# The tests that `make memory` runs.
MEMORY := TestABigFileTakesLittleMemory|TestAWalkOfManyFilesTakesLittleMemory

# How long each fuzz target runs.
FUZZTIME ?= 30s

# How many moments `make faults` has each fault come at, and the seed of the first.
MOMENTS ?= 12
FIRST   ?= 1

# How often an import or a migration is killed at each of them, before it may come to its end.
KILLS ?= 4

# How long the drives are used by make soak.
SOAKTIME ?= 1h

# The folder store that `make run` makes, and whose drives it mounts.
STORE := var/store
USERS := alice bob

# What has to be on the machine, each as what:packages. "what" is a command or a file (a pattern, from /), and the packages are
# those of Debian that bring it.
RUN_NEEDS  := fusermount3:fuse3 /etc/ssl/certs/ca-certificates.crt:ca-certificates
# The race detector is linked in C. The rest are the programs that the tests use a drive with.
TEST_NEEDS := $(RUN_NEEDS) gcc:gcc,libc6-dev /usr/lib/postgresql/*/bin/initdb:postgresql rsync:rsync git:git sqlite3:sqlite3 \
	setfattr:attr unzip:unzip zip:zip strace:strace node:nodejs npm:npm fio:fio stress-ng:stress-ng dbench:dbench

.PHONY: help
help: ## list what can be made
	@echo 'make ...'
	sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r target what; do
		printf '  %-12s %s\n' "$$target" "$$what"
	done

# install brings what of a list of needs is missing.
define install
missing=()
for need in $(1); do
	what=$${need%%:*}
	packages=$${need#*:}
	if [[ $$what == /* ]]; then compgen -G "$$what" >/dev/null && continue
	else command -v "$$what" >/dev/null && continue
	fi
	missing+=($${packages//,/ })
done
if (( $${#missing[@]} )); then
	if ! command -v apt-get >/dev/null; then
		echo "missing here: $${missing[*]} (names of Debian packages): install them with this system's package manager" >&2
		exit 1
	fi
	as_root=(env)
	if (( EUID != 0 )); then
		as_root=(sudo env)
		if ! command -v sudo >/dev/null; then
			echo "missing here: $${missing[*]}. As root: apt-get install $${missing[*]}" >&2
			exit 1
		fi
	fi
	echo "installing $${missing[*]}"
	# Debian starts a server of its own with postgresql unless this is set; the tests bring theirs.
	no_server=/etc/postgresql-common/createcluster.d/mediafs.conf
	if [[ " $${missing[*]} " == *' postgresql '* ]]; then
		"$${as_root[@]}" mkdir -p "$${no_server%/*}"
		echo 'create_main_cluster = off' | "$${as_root[@]}" tee "$$no_server" >/dev/null
	fi
	get() { "$${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$${missing[@]}"; }
	if ! get; then
		echo 'the lists of packages may be missing or old: fetching them'
		"$${as_root[@]}" apt-get -q update
		get
	fi
	"$${as_root[@]}" rm -f "$$no_server"
fi
endef

.PHONY: deps
deps: ## install what building and mounting needs (fuse3)
	@$(call install,$(RUN_NEEDS))

.PHONY: test-deps
test-deps: ## install what the tests need (Postgres, the programs that they use a drive with)
	@$(call install,$(TEST_NEEDS))
	# The tests also mount as ordinary users. The package fuse3 lets them by a rule for udev; where no udev runs, nobody follows it.
	if (( EUID == 0 )) && [[ -c /dev/fuse && $$(stat -c %a /dev/fuse) != 666 ]]; then
		echo 'letting ordinary users mount: chmod 666 /dev/fuse'
		chmod 666 /dev/fuse
	fi

.PHONY: build
build: ## build bin/mediafs
	go build -o bin/mediafs ./cmd/mediafs

.PHONY: run
run: deps build ## mount alice's drive of a sample store at var/mnt/alice
	@mkdir -p var/mnt
	bin/mediafs init --store $(STORE) >/dev/null
	for user in $(USERS); do
		token=var/$$user.token
		[[ -s $$token ]] && continue
		# A user whose token was lost gets a new one.
		verb=add
		if bin/mediafs user list --store $(STORE) | grep -w "$$user" >/dev/null; then verb=token; fi
		(umask 077; bin/mediafs user $$verb --store $(STORE) "$$user" >"$$token.new")
		mv "$$token.new" "$$token"
	done
	mountpoint=var/mnt/alice
	# A drive whose program was killed is still in the mount table but can't be used.
	if [[ ! -d $$mountpoint ]] && grep -qF "/$$mountpoint fuse.mediafs " /proc/mounts; then
		bin/mediafs umount "$$mountpoint"
	fi
	mkdir -p "$$mountpoint"
	if mountpoint -q "$$mountpoint"; then
		echo "alice's drive is mounted already at $$mountpoint"
	else
		bin/mediafs mount --store $(STORE) --token-file var/alice.token --daemon "$$mountpoint"
	fi
	printf '%s\n' '' 'Try:' \
		'  cp -a docs var/mnt/alice/      copy something in' \
		'  ls -l var/mnt/alice            look at it' \
		'  ls -l $(STORE)/alice          the same, as plain files' \
		'  bin/mediafs status             what is mounted' '' \
		'  mkdir -p var/mnt/bob           the other user: a drive of his own' \
		'  bin/mediafs mount --store $(STORE) --token-file var/bob.token --daemon var/mnt/bob' '' \
		'  make stop                      unmount all that'

.PHONY: stop
stop: ## unmount what is mounted under var/mnt
	@mounted=$$(awk -v under="$(CURDIR)/var/mnt/" '$$3 == "fuse.mediafs" && index($$2, under) == 1 {print $$2}' /proc/mounts)
	for mountpoint in $$mounted; do
		bin/mediafs umount "$$mountpoint"
	done

# Runs a command with all temporary files in one folder, then takes that folder away and fails if anything was left in it, or
# a mount or a process of the tests'. $(1): the command.
define leaving_nothing
tmp=$$(mktemp -d /tmp/mediafs-test.XXXXXX)
chmod 755 "$$tmp"
mounts() { awk -v under="$$tmp/" '$$3 ~ /^fuse\./ && index($$2, under) == 1 {print $$2}' /proc/mounts; }
# Processes that were started from the folder, work in it, or carry its name in their environment or arguments.
processes() {
	for process in /proc/[0-9]*; do
		[[ $${process#/proc/} == $$$$ ]] && continue
		links=$$(readlink "$$process/exe" "$$process/cwd" || :)
		if [[ $$links == *"$$tmp"* ]] || grep -qsF "$$tmp" "$$process/environ" "$$process/cmdline"; then
			printf '%s ' "$${process#/proc/}"
			tr '\0' ' ' <"$$process/cmdline" || :
			echo
		fi
	done 2>/dev/null
}
clear_away() {
	mounts | while read -r mountpoint; do umount -l "$$mountpoint" || fusermount3 -uz "$$mountpoint" || :; done
	processes | while read -r process _; do kill -9 "$$process" || :; done
	rm -rf --one-file-system "$$tmp"
}
trap clear_away EXIT
failed=0
TMPDIR=$$tmp $(1) || failed=$$?
left=$$(mounts; processes; find "$$tmp" -mindepth 1 -maxdepth 1)
if [[ -n $$left ]]; then
	printf 'the tests left behind:\n%s\n' "$$left" >&2
	failed=1
fi
exit $$failed
endef

.PHONY: test
test: test-deps ## run all tests with the race detector, on a Postgres of their own, and leave nothing behind
	@$(call leaving_nothing,go test -race -count=1 -parallel 8 -timeout 20m $(PACKAGES))

.PHONY: integration
integration: test-deps ## run the tests of the built and mounted program alone, and say what each does
	@$(call leaving_nothing,go test -race -count=1 -parallel 8 -timeout 20m -v ./integration/...)

.PHONY: programs
programs: test-deps ## run the tests of other people's programs at full length (about an hour)
	@export MEDIAFS_FULL_LENGTH=1
	$(call leaving_nothing,go test -count=1 -parallel 1 -timeout 3h -v -run '$(PROGRAMS)' ./integration/)

# -rapid.seed=N in SOAKFLAGS begins with the sequences of a run that has found something.
.PHONY: soak
soak: test-deps ## use drives on both stores for SOAKTIME (1h), compare with a local disk, and look for leaks
	@$(call leaving_nothing,go test -count=1 -parallel 32 -timeout 0 -v -run '^TestSoak$$' ./integration -soak $(SOAKTIME) -rapid.checks=100 $(SOAKFLAGS))

.PHONY: faults
faults: test-deps ## have each fault come at MOMENTS (12) moments, with the race detector (about 10 minutes)
	@$(call leaving_nothing,go test -race -count=1 -parallel 8 -timeout 2h -v -run '^TestFault' ./integration -moments $(MOMENTS) -first-moment $(FIRST) -kills $(KILLS))

# PEERS="name=/dir ..." measures other mounted file systems too, and PEER_COLD and PEER_SETTLE name programs that
# empty their caches and have them write out what they have.
# BENCHFLAGS="concurrency" or BENCHFLAGS="cpu" measures that instead; BENCHFLAGS="-h" lists the flags. See docs/benchmarks.md.
.PHONY: bench
bench: test-deps build ## measure drives beside a plain folder, go-fuse's loopback, the raw database and PEERS
	@go build -o bin/bench ./integration/bench
	$(call leaving_nothing,bin/bench $(BENCHFLAGS))

.PHONY: gobench
gobench: test-deps ## run the benchmarks of single parts
	@$(call leaving_nothing,go test -run '^$$' -bench . -benchmem $(PACKAGES))

# Each size has a database of its own; it takes up to 9 GB of disk for a while.
.PHONY: growth
growth: test-deps ## show what operations cost from 1,000 to 1,000,000 files, 10 to 10,000 drives, 1 to 100 GB (about 10 minutes)
	@mkdir -p bin
	go build -o bin/growth ./integration/growth
	$(call leaving_nothing,bin/growth -plot docs/growth.svg $(GROWTHFLAGS))

.PHONY: memory
memory: test-deps ## see what a mount takes of memory for 10 GB in and out, and for a walk of a million files (about 5 minutes)
	@export MEDIAFS_FULL_LENGTH=1
	$(call leaving_nothing,go test -count=1 -parallel 1 -timeout 30m -v -run '$(MEMORY)' ./integration/)

.PHONY: pjdfstest
pjdfstest: deps ## run the built POSIX suite at PJDFSTEST=/path on both stores (as root) and print what fails
	@integration/pjdfstest.sh "$(PJDFSTEST)"

# A run that finds something writes it to testdata/fuzz of the package, where every later `go test` tries it again, and says so.
# One that ends with nothing but "context deadline exceeded" met a race of the toolchain at the end of its time
# (golang/go#75804, until Go 1.27) and is done once more.
.PHONY: fuzz
fuzz: test-deps ## run each fuzz target for FUZZTIME (30s)
	@fuzz() {
		local said
		said=$$(go test -run '^$$' -fuzz "^$$2\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$1" 2>&1) && return
		if [[ $$said == *'context deadline exceeded'* && $$said != *'Failing input'* ]]; then
			said=$$(go test -run '^$$' -fuzz "^$$2\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$1" 2>&1) && return
		fi
		printf '%s\n' "$$said" "to repeat it: go test -run '^$$2\$$' $$1" >&2
		return 1
	}
	failed=0
	while read -r package dir; do
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$$dir"/*_test.go 2>/dev/null); do
			echo "$$package $$target for $(FUZZTIME)"
			fuzz "$$package" "$$target" || failed=1
		done
	done < <(go list -f '{{.ImportPath}} {{.Dir}}' $(PACKAGES))
	exit $$failed

.PHONY: lint
lint: $(GOLANGCI) ## check form, dependencies and the import direction
	@unformatted=$$(gofmt -l auth blobstore cmd fusefs integration)
	if [[ -n $$unformatted ]]; then
		printf 'not as gofmt writes it:\n%s\n' "$$unformatted" >&2
		exit 1
	fi
	go vet ./...
	go mod tidy -diff
	go mod verify
	$(GOLANGCI) run --allow-parallel-runners

$(GOLANGCI):
	@mkdir -p bin
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv bin/golangci-lint $@

.PHONY: clean
clean: stop ## take away what was built and the sample store
	@rm -rf --one-file-system bin var
