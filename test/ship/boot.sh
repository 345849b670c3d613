#!/bin/sh
# `boot.sh ROOT`: starts systemd as process 1 of ROOT, in namespaces and a control group of its own, as a
# container does. It may write neither to /sys nor to the kernel's settings: both are the host's.
set -eu
root=$1
groups=$(mktemp -d)
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	kind="cgroup2 none" place=sys/fs/cgroup
else
	kind="cgroup -o none,name=systemd none" place=sys/fs/cgroup/systemd
fi
# shellcheck disable=SC2086 # words
mount -t $kind "$groups"
own=$groups/shishi-ship-$$
mkdir "$own"
trap 'find "$own" -depth -type d -exec rmdir {} + ; umount -l "$groups"; rmdir "$groups"' EXIT

cat >"$root/root/boot.sh" <<EOT
set -eu
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -t sysfs -o ro sysfs /sys
[ $place = sys/fs/cgroup ] || { mount -t tmpfs -o mode=755 none /sys/fs/cgroup && mkdir /$place; }
mount -t $kind /$place
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs none /tmp
exec env -i container=shishi PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
EOT
# The shell joins the group before it is the root of a namespace; this one stays outside. No chroot: in
# one the sandbox of a service cannot have users of its own.
# shellcheck disable=SC2016 # the shells within expand them
sh -c 'echo $$ >"$1/cgroup.procs" && exec unshare --cgroup --mount --uts --ipc --pid --fork --kill-child \
	sh -c "cd \"\$1\" && pivot_root . mnt && umount -l /mnt && exec sh /root/boot.sh" boot "$2"' boot "$own" "$root"
