"""A seccomp filter: a BPF program that the kernel runs for every system call of the sandbox.

Forbidden are processes (threads are not), sockets, shared memory, signals to others, notifications about others'
activity, and everything that container engines refuse. Calls with many operations (`fcntl`, `ioctl`, `kill`) may only
do what is listed here. Calls of the machine's other ABIs (i386, x32, 32-bit ARM) kill the process. The layout of
`struct seccomp_data` and of an instruction is in seccomp(2); numbers are those of Linux 6.10, and later calls do not
exist here.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence

_NEWEST = 462
_X32 = 0x40000000
"""Numbers from here on belong to x86_64's second ABI, x32."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SCHED_CORE = 1, 4, 62
_ACCESS, _NO_ACCESS, _TRUNCATE_AT_OPEN = 0o3, 0o3, 0o1000
"""Bits of `open`: the access mode, the mode that is neither reading nor writing, and O_TRUNC."""
_FCNTL_COMMANDS = (
    *(0, 1030, 1, 2, 3, 4),  # F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    *(5, 6, 7, 36, 37, 38),  # locks: F_GETLK, F_SETLK, F_SETLKW and F_OFD_…
    *(1032, 1034),  # F_GETPIPE_SZ, F_GET_SEALS
)
"""The missing ones notify others of events (F_SETOWN, F_SETSIG, F_NOTIFY), make them wait (F_SETLEASE) or use kernel
memory.
"""
_F_SETFL, _O_ASYNC = 4, 0o20000
_NOTIFICATION_PIPE = 0o200
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS and TIOCGWINSZ (is this a terminal?), FIONREAD, FIONBIO, FIONCLEX and FIOCLEX."""
_WHOLE = 0xFFFFFFFF

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: number on x86_64, on aarch64 (-1: there is none)
_FORBIDDEN = {
    # other processes, and leaving one's own process group
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157),
    "setpgid": (109, 154), "setns": (308, 268), "unshare": (272, 97), "ptrace": (101, 117), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # notifications about others' activity, by name
    "inotify_init": (253, -1), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    "inotify_rm_watch": (255, 28), "statmount": (457, 457), "listmount": (458, 458),
    # sockets
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "sendmsg": (46, 211), "sendmmsg": (307, 269), "setsockopt": (54, 208),
    # memory that no limit counts, and large attack surfaces of the kernel
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "remap_file_pages": (216, 234), "mbind": (237, 235), "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450), "vmsplice": (278, 75),
    # objects of the same user that are found by number or name
    "shmctl": (31, 195), "shmdt": (67, 197), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_unlink": (241, 181),
    "mq_notify": (244, 184),
    # file systems
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442), "mknod": (133, -1),
    "mknodat": (259, 33), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225),
    # the machine
    "bpf": (321, 280), "perf_event_open": (298, 241), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    "syslog": (103, 116), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "personality": (135, 92), "nfsservctl": (180, 42), "vhangup": (153, 58),
    "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "uselib": (134, -1), "ustat": (136, -1),
    "sysfs": (139, -1), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162), "seccomp": (317, 277),
}  # fmt: skip
_FALLEN_BACK_FROM = {"clone3": (435, 435), "openat2": (437, 437)}
"""Their flags are in memory, which a filter cannot read.

C libraries then use `clone` and `openat`, whose flags it can check.
"""
_NEEDLESS = {
    "sync": (162, 81),
    "syncfs": (306, 267),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "sync_file_range": (277, 84),
}
"""They make others wait for the disk, and files here do not outlive the session: they do nothing and report success."""
_CLONE, _KILL_CALL, _TGKILL, _PRLIMIT = (56, 220), (62, 129), (234, 131), (302, 261)
_SOCKETPAIR, _PRCTL, _FCNTL, _IOCTL = (53, 199), (157, 167), (72, 25), (16, 29)
_OPEN, _OPENAT, _TRUNCATE, _FALLOCATE, _PIPE2 = (2, -1), (257, 56), (76, 45), (285, 47), (293, 59)
_OWNERSHIP = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "utimensat": (280, 88), "futimesat": (261, -1), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip

_PID = -1
"""Stands for the process's own id in the tables below."""
# calls, the error, which argument, and its allowed values
_ONLY_WITH = (
    ((_CLONE,), errno.EPERM, (0, _CLONE_THREAD), (_CLONE_THREAD,)),
    ((_KILL_CALL, _TGKILL), errno.EPERM, (0, _WHOLE), (_PID,)),
    ((_PRLIMIT,), errno.EPERM, (0, _WHOLE), (0,)),
    ((_SOCKETPAIR,), errno.EPERM, (0, _WHOLE), (_AF_UNIX,)),
    ((_SOCKETPAIR,), errno.EPERM, (1, _SOCK_TYPE), (_SOCK_STREAM,)),
    ((_FCNTL,), errno.EPERM, (1, _WHOLE), _FCNTL_COMMANDS),
    ((_IOCTL,), errno.ENOTTY, (1, _WHOLE), _IOCTL_COMMANDS),
)
# a call, which argument, and its forbidden value
_NEVER_WITH = (
    (_PRCTL, (0, _WHOLE), _PR_SET_PDEATHSIG),
    (_PRCTL, (0, _WHOLE), _PR_SET_DUMPABLE),
    (_PRCTL, (0, _WHOLE), _PR_SCHED_CORE),
    (_PIPE2, (1, _NOTIFICATION_PIPE), _NOTIFICATION_PIPE),
    # Old kernels check nothing when a read-only file is truncated at opening, or when it is opened with the third
    # access mode.
    (_OPEN, (1, _ACCESS | _TRUNCATE_AT_OPEN), _TRUNCATE_AT_OPEN),
    (_OPEN, (1, _ACCESS), _NO_ACCESS),
    (_OPENAT, (2, _ACCESS | _TRUNCATE_AT_OPEN), _TRUNCATE_AT_OPEN),
    (_OPENAT, (2, _ACCESS), _NO_ACCESS),
)

_Numbers = tuple[int, int]
_Argument = tuple[int, int]
"""Its index, and a mask for its lower half."""


def program(pid: int, *, shares_files: bool, machine: str | None = None) -> bytes:
    """The filter for this machine, for the process `pid`. Raises OSError on an unsupported architecture.

    `shares_files`: files of the service's user are visible (no namespace hides them). Landlock does not restrict modes,
    owners and times, so calls that set those do nothing and report success; `truncate` by path is refused, and so is
    reserving space, which the file size limit does not bound.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp filter is written for {machine}")
    column = list(_ARCHITECTURES).index(machine)
    rules = [_refuse(numbers[column], errno.EPERM) for numbers in _FORBIDDEN.values()]
    rules += [_refuse(numbers[column], errno.ENOSYS) for numbers in _FALLEN_BACK_FROM.values()]
    rules += [_refuse(numbers[column], 0) for numbers in _NEEDLESS.values()]
    rules += _by_argument(column, pid)
    if shares_files:
        rules += [_refuse(_TRUNCATE[column], errno.EPERM), _refuse(_FALLOCATE[column], errno.EOPNOTSUPP)]
        rules += [_refuse(numbers[column], 0) for numbers in _OWNERSHIP.values()]
    return b"".join((_begin(_ARCHITECTURES[machine]), *rules, _instruction(_RETURN, _ALLOW)))


def forbidden() -> dict[str, int]:
    """Calls that are refused whatever their arguments, by name: their numbers on this machine."""
    if platform.machine() not in _ARCHITECTURES:
        return {}
    column = list(_ARCHITECTURES).index(platform.machine())
    calls = {name: numbers[column] for name, numbers in (_FORBIDDEN | _FALLEN_BACK_FROM).items()}
    return {name: number for name, number in calls.items() if number >= 0}


def _by_argument(column: int, pid: int) -> list[bytes]:
    rules = [_no_signals(_FCNTL[column])]
    for calls, error, argument, values in _ONLY_WITH:
        allowed = [pid if value == _PID else value for value in values]
        rules += [_only_with(call[column], error, argument, allowed) for call in calls]
    rules += [_never_with(call[column], errno.EPERM, argument, value) for call, argument, value in _NEVER_WITH]
    return rules


def _begin(architecture: int) -> bytes:
    return b"".join(
        (
            _instruction(_LOAD, _AT_ARCHITECTURE),
            _instruction(_EQUAL, architecture, 1, 0),
            _instruction(_RETURN, _KILL),
            _instruction(_LOAD, _AT_NUMBER),
            _instruction(_AT_LEAST, _X32, 0, 1),
            _instruction(_RETURN, _KILL),
            _instruction(_AT_LEAST, _NEWEST + 1, 0, 1),
            _instruction(_RETURN, _ERRNO | errno.ENOSYS),
        )
    )


def _refuse(number: int, error: int) -> bytes:
    """Fail a system call with an error; 0: report success."""
    if number < 0:
        return b""
    return _instruction(_LOAD, _AT_NUMBER) + _instruction(_EQUAL, number, 0, 1) + _instruction(_RETURN, _ERRNO | error)


def _never_with(number: int, error: int, argument: _Argument, value: int) -> bytes:
    """Fail a system call if its argument has this value."""
    return _where(number, argument, (_instruction(_EQUAL, value, 0, 1), _instruction(_RETURN, _ERRNO | error)))


def _only_with(number: int, error: int, argument: _Argument, allowed: Sequence[int]) -> bytes:
    """Fail a system call unless its argument is one of these."""
    left = range(len(allowed), 0, -1)
    tests = [_instruction(_EQUAL, value, jump, 0) for value, jump in zip(allowed, left, strict=True)]
    return _where(number, argument, (*tests, _instruction(_RETURN, _ERRNO | error)))


def _no_signals(number: int) -> bytes:
    """Forbid `fcntl` requests for a signal when a file is ready."""
    second = (_instruction(_LOAD, _AT_ARGUMENTS + 16), _instruction(_AND, _O_ASYNC), _instruction(_EQUAL, 0, 1, 0))
    refused = _instruction(_RETURN, _ERRNO | errno.EPERM)
    return _where(number, (1, _WHOLE), (_instruction(_EQUAL, _F_SETFL, 0, len(second) + 1), *second, refused))


def _where(number: int, argument: _Argument, judge: Sequence[bytes]) -> bytes:
    """Check one argument of a system call; `judge` returns from the filter, or falls through its end."""
    if number < 0:
        return b""
    place, mask = argument
    look = (_instruction(_LOAD, _AT_ARGUMENTS + 8 * place), _instruction(_AND, mask), *judge)
    return b"".join((_instruction(_LOAD, _AT_NUMBER), _instruction(_EQUAL, number, 0, len(look)), *look))


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
