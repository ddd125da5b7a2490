"""Our layouts and numbers are those of the system's headers, <linux/vfio.h> above all.

One C program is written from the modules of ``uapi``: it prints the size of every
structure, the offset and size of every field, the value of every constant and of
every ioctl number.  Whatever the header lacks, or a module defines and this file
cannot ask C about, is a failure and not a skip.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import pkgutil
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import vfiomig.uapi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

# Modules of uapi whose C side is <linux/vfio.h> (which includes <linux/ioctl.h>).
# One whose numbers come from elsewhere is named there with the reason.
IN_VFIO_H = ("ioctl", "iommu_type1", "migration_v1", "vfio")
# The module whose C side is <linux/pci_regs.h>.
IN_PCI_REGS_H = ("pci",)
# The module whose C side are <linux/seccomp.h>, filter.h, audit.h, prctl.h and more.
IN_SECCOMP_H = ("seccomp",)
ELSEWHERE = {
    "kvm_riscv": "<asm/kvm.h> of RISC-V: tests/unit/uapi/test_kvm_riscv.py",
    "multifd": "QEMU's own sources: tests/unit/protocol/test_multifd.py",
    "qemu_stream": "QEMU's own sources; no installed header has them",
    "rsocket": "<rdma/rsocket.h> of librdmacm-dev: tests/unit/uapi/test_rsocket.py",
    "vfio_user": "a protocol over sockets: tests/unit/uapi/test_vfio_user.py",
    "xen": "Xen's headers and the guest's: tests/unit/uapi/test_xen.py",
    "xen_event_channel": "Xen's: tests/unit/uapi/test_xen_event_channel.py",
    "xen_xs_wire": "<xen/io/xs_wire.h>: tests/unit/uapi/test_xen_xs_wire.py",
}

# Since v5.18 the header gives the names on the left to v2 or to nobody, and calls
# v1's as on the right; both halves are macros, so the preprocessor can choose.
RENAMED = {
    "VFIO_REGION_TYPE_MIGRATION": "VFIO_REGION_TYPE_MIGRATION_DEPRECATED",
    "VFIO_REGION_SUBTYPE_MIGRATION": "VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED",
    "VFIO_DEVICE_STATE_STOP": "VFIO_DEVICE_STATE_V1_STOP",
    "VFIO_DEVICE_STATE_RUNNING": "VFIO_DEVICE_STATE_V1_RUNNING",
    "VFIO_DEVICE_STATE_SAVING": "VFIO_DEVICE_STATE_V1_SAVING",
    "VFIO_DEVICE_STATE_RESUMING": "VFIO_DEVICE_STATE_V1_RESUMING",
}

# Sizes that grew after the version our modules follow: bytes that may be more.
# vfio_device_info: newer headers append a pad, so that 20 bytes become 24.
GROWN = {"sizeof vfio_device_info": 4}

# What headers of Linux 6.1, as Debian 12 has them, do not know; newer ones are asked.
NEWER = {
    "SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP": "since 6.6",
    "SECCOMP_IOCTL_NOTIF_SET_FLAGS": "since 6.6",
}

# Names that only the kernel's own sources have: C says the same with several.
SAID_IN_C = {
    "BPF_LD_W_ABS": "BPF_LD | BPF_W | BPF_ABS",
    "BPF_JMP_JEQ_K": "BPF_JMP | BPF_JEQ | BPF_K",
    "BPF_JMP_JGE_K": "BPF_JMP | BPF_JGE | BPF_K",
    "BPF_RET_K": "BPF_RET | BPF_K",
    "X32_SYSCALL_BIT": "OUR_X32_BIT",  # x86's <asm/unistd.h> alone has it
}

INCLUDED = (
    "stddef.h",
    "stdio.h",
    "linux/vfio.h",
    "linux/pci_regs.h",
    "linux/seccomp.h",
    "linux/filter.h",
    "linux/audit.h",
    "linux/prctl.h",
    "linux/close_range.h",
    "asm/unistd.h",
)

# Structures that C does not have, and what their sizes are to it.
NOT_IN_C = {"pci_header": "PCI_STD_HEADER_SIZEOF", "pci_msi": "PCI_MSI_MASK_64"}

# What a function-like macro of one or two numbers is tried on.
STATES = (*range(16), 0xFFFF_FFF8, 0xFFFF_FFFE)
NUMBERS = ((0, 0), (ord(";"), 100), (ord(";"), 118), (0xFF, 0xFF))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Something to ask C: what to call it, how C says it, what we say."""

    name: str
    expression: str
    ours: int


def structure_questions(structure: type[ctypes.Structure]) -> Iterator[Question]:
    name = structure.__name__
    yield Question(
        name=f"sizeof {name}",
        expression=NOT_IN_C.get(name, f"sizeof(struct {name})"),
        ours=ctypes.sizeof(structure),
    )
    for field, *_ in structure._fields_:
        descriptor = getattr(structure, field)
        if name in NOT_IN_C:
            yield register_question(name, field, descriptor.offset)
            continue
        yield Question(
            name=f"offsetof {name}.{field}",
            expression=f"offsetof(struct {name}, {field})",
            ours=descriptor.offset,
        )
        yield Question(
            name=f"sizeof {name}.{field}",
            expression=f"sizeof(((struct {name} *)0)->{field})",
            ours=descriptor.size,
        )


def register_question(name: str, field: str, offset: int) -> Question:
    """Ask for an offset that C knows as a macro of the field's name."""
    macro = f"PCI_{field.upper()}" if field != "reserved" else "PCI_CAPABILITY_LIST + 1"
    return Question(name=f"offsetof {name}.{field}", expression=macro, ours=offset)


def function_questions(name: str, function: object) -> Iterator[Question]:
    assert callable(function)
    match len(inspect.signature(function).parameters):
        case 0:
            yield Question(name=name, expression=name, ours=function())
        case 1:
            for state in STATES:
                call = f"{name}({state:#x}u)"
                yield Question(name=call, expression=call, ours=function(state))
        case 2:
            for pair in NUMBERS:
                call = f"{name}({pair[0]}, {pair[1]})"
                yield Question(name=call, expression=call, ours=function(*pair))
        case _:
            pytest.fail(f"how is {name} called in C? teach this test")


def questions_of(module: ModuleType) -> Iterator[Question]:
    """Ask for all that a module defines itself; what it imported is not its own."""
    for name, value in vars(module).items():
        if name.startswith("__") or name == "TYPE_CHECKING" or inspect.ismodule(value):
            continue
        if getattr(value, "__module__", module.__name__) != module.__name__:
            continue
        if isinstance(value, type) and issubclass(value, ctypes.Structure):
            yield from structure_questions(value)
        elif inspect.isfunction(value):
            yield from function_questions(name, value)
        elif isinstance(value, int):
            yield constant_question(name, value)
        else:
            pytest.fail(f"{module.__name__}.{name}: this test cannot ask C about it")


def constant_question(name: str, ours: int) -> Question:
    expression = SAID_IN_C.get(name, name)
    return Question(name=name, expression=expression, ours=ours)


def program(questions: list[Question]) -> str:
    """Write the C program that answers: one "index value" a line."""
    lines = [f"#include <{each}>" for each in INCLUDED]
    ours = {question.name: question.ours for question in questions}
    for name in NEWER:
        lines += [f"#ifndef {name}", f"#define {name} {ours.get(name, 0)}ul", "#endif"]
    lines += ["#ifdef __X32_SYSCALL_BIT", "#define OUR_X32_BIT __X32_SYSCALL_BIT"]
    lines += ["#else", "#define OUR_X32_BIT 0x40000000", "#endif"]
    for old, new in RENAMED.items():
        lines += [f"#ifdef {new}", f"#define OUR_{old} {new}"]
        lines += ["#else", f"#define OUR_{old} {old}", "#endif"]
    lines += ["int main(void)", "{"]
    for index, question in enumerate(questions):
        said = question.expression
        said = f"OUR_{said}" if said in RENAMED else said
        lines.append(f'\tprintf("{index} %llu\\n", (unsigned long long)({said}));')
    return "\n".join([*lines, "\treturn 0;", "}", ""])


def ask_c(questions: list[Question], folder: Path) -> dict[str, int]:
    """Compile the questions in ``folder`` and return C's answers by name."""
    source, binary = folder / "questions.c", folder / "questions"
    source.write_text(program(questions))
    compiler = ["cc", "-O0", "-Wall", "-Werror", "-o", str(binary), str(source)]
    compiled = subprocess.run(compiler, capture_output=True, text=True, check=False)
    assert compiled.returncode == 0, f"the header lacks something:\n{compiled.stderr}"
    printed = subprocess.check_output([binary], text=True).split()
    answers = dict(zip(printed[::2], printed[1::2], strict=True))
    return {q.name: int(answers[str(i)]) for i, q in enumerate(questions)}


def differences(questions: list[Question], answers: dict[str, int]) -> list[str]:
    """Say where C and we differ, for a reader of the failure."""
    return [
        f"{q.name}: {answers[q.name]} in C, {q.ours} in ours"
        for q in questions
        if answers[q.name] not in {q.ours, q.ours + GROWN.get(q.name, 0)}
    ]


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if shutil.which("cc") is None or not Path("/usr/include/linux/vfio.h").exists():
        pytest.skip("no cc or no <linux/vfio.h>: install gcc and linux-libc-dev")


def test_every_module_of_uapi_is_compared_with_its_header() -> None:
    found = {module.name for module in pkgutil.iter_modules(vfiomig.uapi.__path__)}
    assert found == {*IN_VFIO_H, *IN_PCI_REGS_H, *IN_SECCOMP_H, *ELSEWHERE}


def test_sizes_offsets_and_numbers_are_those_of_the_header(tmp_path: Path) -> None:
    modules = [
        importlib.import_module(f"vfiomig.uapi.{name}")
        for name in (*IN_VFIO_H, *IN_PCI_REGS_H, *IN_SECCOMP_H)
    ]
    questions = [question for module in modules for question in questions_of(module)]
    assert {q.name for q in questions} > {"VFIO_TYPE", "sizeof vfio_region_info"}
    assert differences(questions, ask_c(questions, tmp_path)) == []


def test_the_system_s_headers_lack_no_more_than_is_said(tmp_path: Path) -> None:
    source = tmp_path / "newer.c"
    source.write_text(
        "".join(f"#include <{each}>\n" for each in INCLUDED)
        + "".join(f"#ifndef {name}\n{name}\n#endif\n" for name in NEWER)
    )
    command = ["cc", "-E", "-P", str(source)]
    printed = subprocess.check_output(command, text=True).split()
    lacking = {name for name in NEWER if name in printed}
    assert lacking in (set(), {*NEWER})  # a list that is too long is noticed


def test_two_fields_that_change_places_are_noticed(tmp_path: Path) -> None:
    swapped = type(
        "vfio_device_migration_info",
        (ctypes.Structure,),
        {
            "_fields_": (
                ("device_state", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32),
                ("pending_bytes", ctypes.c_uint64),
                ("data_size", ctypes.c_uint64),
                ("data_offset", ctypes.c_uint64),
            )
        },
    )
    questions = list(structure_questions(swapped))
    assert differences(questions, ask_c(questions, tmp_path)) == [
        "offsetof vfio_device_migration_info.data_size: 24 in C, 16 in ours",
        "offsetof vfio_device_migration_info.data_offset: 16 in C, 24 in ours",
    ]


def test_a_name_that_the_header_lacks_is_a_failure(tmp_path: Path) -> None:
    unknown = Question(name="VFIO_NEVER", expression="VFIO_NEVER", ours=1)
    with pytest.raises(AssertionError, match="VFIO_NEVER"):
        ask_c([unknown], tmp_path)
