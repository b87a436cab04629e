"""The filter of system calls, judged by a small machine of its kind, so that the other architecture's numbers are tried
here, too.
"""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox.inside import seccomp

PID = 4711
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386, ARM = 0x40000003, 0x40000028
X32 = 0x40000000
ALLOWED, KILLED = "allowed", "killed"

REFUSED = [
    # x86_64, aarch64, arguments
    (72, 25, (3, 8, PID)),  # fcntl F_SETOWN
    (72, 25, (3, 15, 0)),  # F_SETOWN_EX
    (72, 25, (3, 10, 9)),  # F_SETSIG
    (72, 25, (3, 1024, 1)),  # F_SETLEASE
    (72, 25, (3, 1026, 1)),  # F_NOTIFY
    (72, 25, (3, 1031, 1 << 20)),  # F_SETPIPE_SZ
    (72, 25, (3, 4, 0o20000 | 0o4000)),  # F_SETFL with O_ASYNC
    (72, 25, (3, (1 << 32) | 8, PID)),  # the kernel looks at the lower half
    (16, 29, (3, 0x8901, 0)),  # FIOSETOWN
    (16, 29, (3, 0x8902, 0)),  # SIOCSPGRP
    (16, 29, (3, 0x5452, 0)),  # FIOASYNC
    (16, 29, (3, 0x5412, 0)),  # TIOCSTI
    (16, 29, (3, 0x40305828, 0)),  # FS_IOC_RESVSP, which reserves space
    (257, 56, (-100, 0, 0o1000)),  # openat with O_RDONLY | O_TRUNC
    (257, 56, (-100, 0, 0o1100)),  # and O_CREAT
    (257, 56, (-100, 0, 3)),
    (257, 56, (-100, 0, 0o1003)),
    (437, 437, (-100, 0, 0, 24)),  # openat2
    (62, 129, (PID + 1, 9)),
    (62, 129, (-1, 9)),
    (62, 129, (0, 9)),
    (234, 131, (PID + 1, PID + 1, 9)),
    (200, 130, (PID, 9)),
    (424, 424, (3, 9)),
    (294, 26, (0,)),  # inotify_init1
    (254, 27, (3, 0, 0)),
    (300, 262, (0, 0)),  # fanotify_init
    (301, 263, (0, 0)),
    (425, 425, (8, 0)),  # io_uring_setup
    (310, 270, (1,)),
    (312, 272, (1,)),
    (323, 282, (0,)),
    (298, 241, (0,)),
    (250, 219, (0,)),
    (303, 264, (0,)),
    (165, 40, (0,)),
    (428, 428, (0,)),
    (179, 60, (0,)),
    (101, 117, (0,)),
    (141, 140, (0,)),
    (251, 30, (0,)),
    (302, 261, (PID + 1, 7)),
    (203, 122, (PID + 1,)),
    (285, 47, (3, 1, 0, 1 << 40)),  # fallocate
    (56, 220, (17,)),  # clone without CLONE_THREAD
    (435, 435, (0, 88)),
    (41, 198, (2, 1, 0)),
    (463, 463, ()),  # newer than the list
]
GRANTED = [
    (72, 25, (3, 0, 10)),
    (72, 25, (3, 1030, 10)),
    (72, 25, (3, 4, 0o4000)),
    (72, 25, (3, 6, 0)),
    (16, 29, (3, 0x5401, 0)),
    (16, 29, (3, 0x5421, 0)),
    (257, 56, (-100, 0, 0)),
    (257, 56, (-100, 0, 0o1001)),  # O_WRONLY | O_TRUNC
    (257, 56, (-100, 0, 0o1102)),
    (62, 129, (PID, 9)),
    (234, 131, (PID, PID + 1, 9)),
    (302, 261, (0, 7)),
    (56, 220, (0x10000,)),
    (53, 199, (1, 1 | 0o2000000, 0)),
    (0, 63, (3,)),
]


def judged(program: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> str | int:
    """What the filter says of a call: ALLOWED, KILLED, or the error that the caller sees (0: as if done)."""
    padded = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    steps = list(struct.iter_unpack("=HBBI", program))
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        match code:
            case 0x20:
                accumulator = int(struct.unpack_from("<I", data, operand)[0])
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case _:
                return {0x7FFF0000: ALLOWED, 0x80000000: KILLED}.get(operand, operand & 0xFFFF)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("on_x86_64", "on_aarch64", "arguments"), REFUSED)
def test_what_reaches_others_is_refused(
    machine: str, on_x86_64: int, on_aarch64: int, arguments: tuple[int, ...]
) -> None:
    program = seccomp.program(PID, shares_files=True, machine=machine)
    number = on_x86_64 if machine == "x86_64" else on_aarch64

    errors = (errno.EPERM, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP)
    assert judged(program, ARCHITECTURES[machine], number, arguments) in errors


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("on_x86_64", "on_aarch64", "arguments"), GRANTED)
def test_what_python_needs_is_granted(
    machine: str, on_x86_64: int, on_aarch64: int, arguments: tuple[int, ...]
) -> None:
    program = seccomp.program(PID, shares_files=True, machine=machine)
    number = on_x86_64 if machine == "x86_64" else on_aarch64

    assert judged(program, ARCHITECTURES[machine], number, arguments) == ALLOWED


OTHER_SETS = [("x86_64", I386, 20), ("aarch64", ARM, 20), ("x86_64", ARCHITECTURES["x86_64"], X32 + 39)]


@pytest.mark.parametrize(("machine", "architecture", "number"), OTHER_SETS)
def test_calls_of_another_instruction_set_end_the_process(machine: str, architecture: int, number: int) -> None:
    program = seccomp.program(PID, shares_files=False, machine=machine)

    assert judged(program, architecture, number, ()) == KILLED


def test_the_older_ways_to_open_are_seen_as_well() -> None:
    program = seccomp.program(PID, shares_files=True, machine="x86_64")

    assert judged(program, ARCHITECTURES["x86_64"], 2, (0, 0o1000)) == errno.EPERM
    # creat, which asks for the right to write
    assert judged(program, ARCHITECTURES["x86_64"], 85, (0, 0o1000)) == ALLOWED


def test_what_would_make_others_wait_for_the_disk_does_nothing() -> None:
    program = seccomp.program(PID, shares_files=False, machine="x86_64")

    assert [judged(program, ARCHITECTURES["x86_64"], number, (0,)) for number in (162, 306, 74, 75, 277)] == [0] * 5


def test_an_architecture_without_a_list_is_refused() -> None:
    with pytest.raises(OSError, match="riscv64"):
        seccomp.program(PID, shares_files=True, machine="riscv64")
