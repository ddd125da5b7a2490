"""XenStore's numbers and layouts: no installed header has them.

They are written down from Xen's <xen/io/xs_wire.h>, 4.17, and its xenstore-ring.txt.
"""

from __future__ import annotations

import ctypes

from vfiomig.uapi import xen_xs_wire

TYPES = {
    "CONTROL": 0,
    "DIRECTORY": 1,
    "READ": 2,
    "GET_PERMS": 3,
    "WATCH": 4,
    "UNWATCH": 5,
    "TRANSACTION_START": 6,
    "TRANSACTION_END": 7,
    "INTRODUCE": 8,
    "RELEASE": 9,
    "GET_DOMAIN_PATH": 10,
    "WRITE": 11,
    "MKDIR": 12,
    "RM": 13,
    "SET_PERMS": 14,
    "WATCH_EVENT": 15,
    "ERROR": 16,
    "IS_DOMAIN_INTRODUCED": 17,
    "RESUME": 18,
    "SET_TARGET": 19,
    "RESET_WATCHES": 21,
    "DIRECTORY_PART": 22,
    "INVALID": 0xFFFF,
}
QUOTAS = {
    "MAX_WATCHES": 128,
    "MAX_DOMAIN_NODES": 1000,
    "MAX_NODE_SIZE": 2048,
    "MAX_TRANSACTIONS": 10,
    "MAX_PERMS_PER_NODE": 5,
}


def test_types_and_quotas_have_their_values() -> None:
    found = {
        name.removeprefix("XS_"): value
        for name, value in vars(xen_xs_wire).items()
        if name.startswith("XS_")
    }
    assert found == TYPES | QUOTAS
    assert xen_xs_wire.XBT_NULL == 0
    assert xen_xs_wire.XENSTORE_PAYLOAD_MAX == 4096
    assert xen_xs_wire.XENSTORE_ABS_PATH_MAX == 3072
    assert xen_xs_wire.XENSTORE_REL_PATH_MAX == 2048


def test_a_header_is_four_words() -> None:
    header = xen_xs_wire.xsd_sockmsg(type=1, req_id=2, tx_id=3, len=4)
    assert bytes(header).hex(" ", 4) == "01000000 02000000 03000000 04000000"


def test_the_ring_page_is_laid_out_as_the_text_says() -> None:
    page = xen_xs_wire.xenstore_domain_interface
    assert {name: getattr(page, name).offset for name, *_ in page._fields_} == {
        "req": 0,
        "rsp": 1024,
        "req_cons": 2048,
        "req_prod": 2052,
        "rsp_cons": 2056,
        "rsp_prod": 2060,
        "server_features": 2064,
        "connection": 2068,
        "error": 2072,
    }
    assert ctypes.sizeof(page) == 2076
