"""A block device's other side: one file, served over FUSE, that remembers in which order it was written.

`python3 power_disk.py FILE BYTES LOG COUNTER` mounts itself over FILE, which is BYTES long and zeros at
first, prints `mounted`, and serves it until FILE is unmounted. A loop device on FILE passes on what a file
system asks of its disk: writes, and flushes (as fsync).

LOG gets one record each, in the order in which they were done: `<offset u64, length u32, bytes>`, a flush
being a record without bytes. COUNTER, 8 bytes, holds how many there are; it is raised before the kernel
is answered, so a number that is read after an answer counts the flush that the answer rests on.

Spoken here is the protocol of /dev/fuse (Linux, include/uapi/linux/fuse.h) as far as one regular file, which
is the root of its file system, needs it.
"""

import ctypes
import errno
import mmap
import os
import struct
import sys

FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 2, 3, 4, 14, 15, 16, 17, 18, 20
FLUSH, INIT, DESTROY, BATCH_FORGET = 25, 26, 38, 42

MOST_BYTES = 1 << 20
HEADER_BYTES = 40
NO_CACHE = 1
"""FOPEN_DIRECT_IO: the kernel keeps no pages of its own, so what is written comes at once."""
ASYNC_READ, BIG_WRITES, MAX_PAGES = 1, 1 << 5, 1 << 22
FOREVER_S = 3600

path, size, log_path, counter_path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def mount():
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=100000,user_id=0,group_id=0,max_read={MOST_BYTES}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"shishi-power", path.encode(), b"fuse", 0, options.encode()) != 0:
        sys.exit(f"mount -t fuse: {os.strerror(ctypes.get_errno())}")
    return fuse


def attributes():
    size_and_times = struct.pack("<QQQQQQIII", 1, size, size // 512, 0, 0, 0, 0, 0, 0)
    return struct.pack("<QII", FOREVER_S, 0, 0) + size_and_times + struct.pack(
        "<IIIIIII", 0o100600, 1, 0, 0, 0, 4096, 0
    )


def counter():
    file = os.open(counter_path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, 8)
    return mmap.mmap(file, 8)


class Disk:
    def __init__(self, log, count):
        self.content = mmap.mmap(-1, size)
        self.log = log
        self.count = count
        self.records = 0

    def record(self, offset, data):
        self.log.write(struct.pack("<QI", offset, len(data)))
        self.log.write(data)
        self.records += 1
        struct.pack_into("<Q", self.count, 0, self.records)

    def write(self, offset, data):
        self.content[offset : offset + len(data)] = data
        self.record(offset, data)

    def flush(self):
        self.record(0, b"")


def answer(disk, call, body):
    """What the kernel is told; None where it waits for nothing."""
    if call == INIT:
        flags = ASYNC_READ | BIG_WRITES | MAX_PAGES
        said = struct.pack("<IIIIHHIIHH", 7, 31, MOST_BYTES, flags, 64, 48, MOST_BYTES, 1, MOST_BYTES // 4096, 0)
        return said.ljust(64, b"\0")
    if call in (GETATTR, SETATTR):
        return attributes()
    if call == OPEN:
        return struct.pack("<QII", 1, NO_CACHE, 0)
    if call == READ:
        _, offset, length = struct.unpack_from("<QQI", body)
        return disk.content[offset : offset + length]
    if call == WRITE:
        _, offset, length = struct.unpack_from("<QQI", body)
        disk.write(offset, body[40 : 40 + length])
        return struct.pack("<II", length, 0)
    if call == FSYNC:
        disk.flush()
        return b""
    if call == STATFS:
        return struct.pack("<QQQQQIIII", size // 4096, 0, 0, 1, 0, 4096, 255, 4096, 0).ljust(80, b"\0")
    if call in (RELEASE, FLUSH, DESTROY):
        return b""
    if call in (FORGET, BATCH_FORGET):
        return None
    raise OSError(errno.ENOSYS, "not needed")


def serve(fuse, disk):
    while True:
        try:
            request = os.read(fuse, MOST_BYTES + 8192)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                continue
            raise
        _, call, unique = struct.unpack_from("<IIQ", request)
        problem, said = 0, b""
        try:
            said = answer(disk, call, memoryview(request)[HEADER_BYTES:])
        except OSError as error:
            problem = -error.errno
        if said is not None:
            os.write(fuse, struct.pack("<IiQ", 16 + len(said), problem, unique) + said)


with open(log_path, "wb", buffering=MOST_BYTES) as log:
    device = mount()
    print("mounted", flush=True)
    serve(device, Disk(log, counter()))
