"""A seccomp filter: a program for the kernel's packet-filter machine that sees every system call of the sandbox.

Processes are forbidden altogether (threads are not), and so are sockets, shared memory, signals to others, and what a container engine
refuses, too. The layout of `struct seccomp_data` and of an instruction is in seccomp(2); numbers are those of Linux 6.10, and whatever
came later does not exist here.
"""

from __future__ import annotations

import errno
import platform
import struct

_NEWEST = 462
_X32 = 0x40000000
"""Numbers from here on are x86_64's second set of system calls."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: number on x86_64, on aarch64 (-1: there is none)
_FORBIDDEN = {
    # other processes, and being anywhere else than in one's own group
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157), "setpgid": (109, 154),
    "setns": (308, 268), "unshare": (272, 97), "ptrace": (101, 117), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # sockets
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # memory that no limit counts, and large targets in the kernel
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "remap_file_pages": (216, 234), "mbind": (237, 235),
    "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    # file systems
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "mknod": (133, -1), "mknodat": (259, 33), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "quotactl": (179, 60), "quotactl_fd": (443, 443), "acct": (163, 89),
    "swapon": (167, 224), "swapoff": (168, 225),
    # the machine
    "bpf": (321, 280), "perf_event_open": (298, 241), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "syslog": (103, 116), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "lookup_dcookie": (212, 18), "personality": (135, 92), "nfsservctl": (180, 42),
    "vhangup": (153, 58), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1), "uselib": (134, -1), "ustat": (136, -1),
    "sysfs": (139, -1), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
_CLONE, _CLONE3, _KILL_CALL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRLIMIT, _SOCKETPAIR, _PRCTL, _TRUNCATE = (302, 261), (53, 199), (157, 167), (76, 45)
_OWNERSHIP = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1), "fchown": (93, 55),
    "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1), "utimensat": (280, 88), "futimesat": (261, -1),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
}  # fmt: skip

_Numbers = tuple[int, int]


def program(pid: int, *, shares_files: bool) -> bytes:
    """The filter for this machine, for the process `pid`. Raises OSError on an architecture it is not written for.

    `shares_files`: files of the service's user are in sight (no namespace hides them). Landlock does not guard modes, owners and times,
    so calls that set those do nothing then, and say that they did; `truncate` by name is refused.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp filter is written for {machine}")
    column = list(_ARCHITECTURES).index(machine)
    rules = [_rule(numbers[column], errno.EPERM) for numbers in _FORBIDDEN.values()]
    rules += [_rule(_CLONE3[column], errno.ENOSYS)]  # the C library then falls back to clone, whose flags can be seen
    rules += [_rule(_CLONE[column], errno.EPERM, (0, _CLONE_THREAD, 0, True))]
    rules += [_rule(call[column], errno.EPERM, (0, 0xFFFFFFFF, pid, False)) for call in (_KILL_CALL, _TGKILL)]
    rules += [_rule(_PRLIMIT[column], errno.EPERM, (0, 0xFFFFFFFF, 0, False))]
    rules += [_rule(_SOCKETPAIR[column], errno.EPERM, (0, 0xFFFFFFFF, _AF_UNIX, False))]
    rules += [_rule(_SOCKETPAIR[column], errno.EPERM, (1, _SOCK_TYPE, _SOCK_STREAM, False))]
    rules += [_rule(_PRCTL[column], errno.EPERM, (0, 0xFFFFFFFF, option, True)) for option in (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE)]
    if shares_files:
        rules += [_rule(_TRUNCATE[column], errno.EPERM)]
        rules += [_rule(numbers[column], 0) for numbers in _OWNERSHIP.values()]
    return b"".join((_begin(_ARCHITECTURES[machine]), *rules, _instruction(_RETURN, _ALLOW)))


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


def _rule(number: int, error: int, condition: tuple[int, int, int, bool] | None = None) -> bytes:
    """Answer a system call with an error, if its argument, under a mask, is (True) or is not (False) of a value."""
    if number < 0:
        return b""
    answer = _instruction(_RETURN, _ERRNO | error)
    if condition is None:
        return _instruction(_LOAD, _AT_NUMBER) + _instruction(_EQUAL, number, 0, 1) + answer
    argument, mask, value, equal = condition
    return b"".join(
        (
            _instruction(_LOAD, _AT_NUMBER),
            _instruction(_EQUAL, number, 0, 4),
            _instruction(_LOAD, _AT_ARGUMENTS + 8 * argument),
            _instruction(_AND, mask),
            _instruction(_EQUAL, value, *((0, 1) if equal else (1, 0))),
            answer,
        )
    )


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
