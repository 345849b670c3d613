#!/bin/sh
# `test/ship/run.sh [FILE ...]`: the tests of this folder, in namespaces of their own for mounts and
# processes and on a disk in memory. So whatever they start, mount or write is gone with them, also when
# they are killed. Root on Linux only. They are no part of the suites that run under each runtime: what
# is shipped is one binary.
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- ./test/ship/all.ts
if [ "${SHISHI_SHIP:-}" != inside ]; then
	SHISHI_SHIP=inside exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
		"$0" "$@"
fi
unset SHISHI_SHIP
# Container tools keep things in there; and the one that starts containers refuses a host with both
# versions of control groups, of which it needs none.
mount -t tmpfs shishi-run /run
[ ! -d /sys/fs/cgroup/unified ] || umount -l /sys/fs/cgroup/unified
disk=$(mktemp -d)
mount -t tmpfs -o mode=0755 shishi-ship "$disk"
trap 'umount -l "$disk"; rmdir "$disk"' EXIT
TMPDIR=$disk node_modules/.bin/bun test --timeout 300000 "$@"
