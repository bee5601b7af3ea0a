#!/bin/bash
# Runs pjdfstest, the public suite of POSIX rules, on a drive of each store, and prints what fails. It has to be there already, built:
#
#   integration/pjdfstest.sh FOLDER [file|postgres]...
#
# FOLDER holds the program pjdfstest and its tests. Only root can run it, as it acts as several users. The stores, a Postgres of
# their own and the mounts are in one temporary folder, under TMPDIR, that goes away with them. JOBS (4) tests run at a time.
set -euo pipefail

fail() { echo "pjdfstest: $*" >&2; exit 2; }

[[ -n ${1-} ]] || fail 'say where it is: make pjdfstest PJDFSTEST=/path/to/pjdfstest'
suite=$(realpath -- "$1")
shift
[[ -x $suite/pjdfstest && -d $suite/tests ]] || fail "$suite holds no built pjdfstest (its README says how it is built)"
(( EUID == 0 )) || fail 'only root can act as the users of the tests: run it as root'
command -v prove >/dev/null || fail 'prove is missing: apt-get install perl'
(( $# )) || set -- file postgres

cd "$(dirname "$0")/.."
tmp=$(mktemp -d "${TMPDIR:-/tmp}/mediafs-pjdfstest.XXXXXX")
chmod 755 "$tmp" # the tests' users have to get to the mounts
mediafs=$tmp/mediafs
postgres=
mounts=()
daemons=()

as_postgres() { (cd "$tmp/cluster" && runuser -u postgres -- "$@"); }

clear_away() {
	trap '' INT TERM # a second one would leave half of it
	for mount in "${mounts[@]}"; do
		"$mediafs" umount "$mount" || umount -l "$mount" || :
	done
	wait "${daemons[@]}" || :
	if [[ -n $postgres ]]; then as_postgres "$postgres/pg_ctl" -D "$tmp/cluster/data" -m fast stop >/dev/null || :; fi
	rm -rf --one-file-system "$tmp"
}
trap clear_away EXIT

start_postgres() {
	local programs=(/usr/lib/postgresql/*/bin)
	[[ -x ${programs[-1]}/initdb ]] || fail 'Postgres is missing: apt-get install postgresql'
	install -d -o postgres "$tmp/cluster"
	as_postgres "${programs[-1]}/initdb" --pgdata=data --no-sync --auth=trust --encoding=UTF8 --locale=C >/dev/null
	as_postgres "${programs[-1]}/pg_ctl" -D data -l log -w -o "-k $tmp/cluster -c listen_addresses=''" start >/dev/null
	postgres=${programs[-1]}
	as_postgres "$postgres/createdb" -h "$tmp/cluster" drives
}

# mount_drive mounts a new drive of a store with everyone let in.
mount_drive() {
	local kind=$1 store=$2 mount=$tmp/mount-$1
	mkdir "$mount"
	"$mediafs" init --store "$store" >/dev/null
	(umask 077; "$mediafs" user add --store "$store" anna >"$tmp/$kind.token")
	exec {said}< <("$mediafs" mount --store "$store" --token-file "$tmp/$kind.token" --allow-other --log-level warn "$mount")
	daemons+=($!)
	read -r _ <&"$said" || fail "$kind: not mounted" # it says so when the drive can be used
	mounts+=("$mount")
	chmod 755 "$mount"
	mkdir "$mount/tests"
}

go build -o "$mediafs" ./cmd/mediafs
failed=0
for kind; do
	case $kind in
	file) mount_drive file "$tmp/store" ;;
	postgres)
		start_postgres
		mount_drive postgres "postgres://postgres@/drives?host=$tmp/cluster"
		;;
	*) fail "$kind: the stores are file and postgres" ;;
	esac
	echo "== $kind"
	(cd "$tmp/mount-$kind/tests" && prove -r -f -j "${JOBS:-4}" "$suite/tests") | grep -v ' ok$' || failed=1
done
exit $failed
