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
disk=$(mktemp -d)
mount -t tmpfs -o mode=0755 shishi-ship "$disk"
trap 'umount -l "$disk"; rmdir "$disk"' EXIT
# Container tools keep things in these two, wherever they are told to keep their images.
mount -t tmpfs shishi-run /run
mkdir "$disk/lib" "$disk/lib-work"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$disk/lib,workdir=$disk/lib-work" shishi-lib /var/lib
# What starts containers refuses a host with both versions of control groups, of which it needs none.
[ ! -d /sys/fs/cgroup/unified ] || umount -l /sys/fs/cgroup/unified
TMPDIR=$disk node_modules/.bin/bun test --timeout 900000 "$@"
