"""The store's end of the ring: takes a guest's requests and answers them.

Rule: a request waits while a reply, or an event of the guest's, waits for room.  So a
guest that does not read is not served, and makes the host hold nothing more.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from vfiomig.protocol.errors import MessageError, ProtocolError
from vfiomig.protocol.xenstore import (
    FORMS,
    MESSAGE_MAX,
    OK,
    Message,
    Ring,
    arguments,
    decode_texts,
    encode_texts,
    message_in,
    missing_in,
    watch_event,
)
from vfiomig.uapi.xen_xs_wire import (
    XENSTORE_PAYLOAD_MAX,
    XS_CONTROL,
    XS_DIRECTORY,
    XS_DIRECTORY_PART,
    XS_GET_PERMS,
    XS_INTRODUCE,
    XS_IS_DOMAIN_INTRODUCED,
    XS_MKDIR,
    XS_READ,
    XS_RELEASE,
    XS_RESET_WATCHES,
    XS_RESUME,
    XS_RM,
    XS_SET_PERMS,
    XS_SET_TARGET,
    XS_TRANSACTION_END,
    XS_TRANSACTION_START,
    XS_UNWATCH,
    XS_WATCH,
    XS_WRITE,
)
from vfiomig.vm.xen.xenstore_rules import refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from vfiomig.protocol.xenstore import Arguments
    from vfiomig.vm.xen.xenstore import XenStore

# For the host's tools alone; what is in neither this nor FORMS is ENOSYS.
_PRIVILEGED: Final = frozenset(
    {
        XS_CONTROL,
        XS_INTRODUCE,
        XS_IS_DOMAIN_INTRODUCED,
        XS_RELEASE,
        XS_RESUME,
        XS_SET_TARGET,
    }
)


def answer(store: XenStore, message: Message) -> Message:
    """Perform a request of the store's guest and return the reply."""
    if message.type not in FORMS:
        is_known = message.type in _PRIVILEGED
        return message.error(errno.EACCES if is_known else errno.ENOSYS)
    try:
        given = arguments(message)
        payload = _PERFORM[message.type](store, message.tx_id, given)
    except MessageError as error:
        return message.error(error.code)
    except OSError as error:
        return message.error(error.errno or errno.EIO)
    if len(payload) > XENSTORE_PAYLOAD_MAX:
        return message.error(errno.E2BIG)
    return message.reply(payload)


def _read(store: XenStore, tx: int, given: Arguments) -> bytes:
    return store.read(store.domid, tx, given.texts[0])


def _write(store: XenStore, tx: int, given: Arguments) -> bytes:
    store.write(store.domid, tx, given.texts[0], given.rest)
    return OK


def _mkdir(store: XenStore, tx: int, given: Arguments) -> bytes:
    store.mkdir(store.domid, tx, given.texts[0])
    return OK


def _rm(store: XenStore, tx: int, given: Arguments) -> bytes:
    store.rm(store.domid, tx, given.texts[0])
    return OK


def _directory(store: XenStore, tx: int, given: Arguments) -> bytes:
    return encode_texts(store.directory(store.domid, tx, given.texts[0]))


def _directory_part(store: XenStore, tx: int, given: Arguments) -> bytes:
    """Return the generation, then names from a byte on; a NUL ends the last of them."""
    path, offset = given.texts
    children = encode_texts(store.directory(store.domid, tx, path))
    if not (offset.isascii() and offset.isdecimal() and len(offset) < 10):
        refuse(errno.EINVAL, f"no offset: {offset[:20]!r}")
    if int(offset) > len(children):
        refuse(errno.EINVAL, f"there are {len(children)} bytes of names")
    head = encode_texts((str(store.generation(store.domid, tx, path)),))
    rest = children[int(offset) :] + b"\0"
    room = XENSTORE_PAYLOAD_MAX - len(head)
    if len(rest) > room:
        rest = rest[: rest.rfind(b"\0", 0, room) + 1]
    return head + rest


def _get_perms(store: XenStore, tx: int, given: Arguments) -> bytes:
    return encode_texts(store.get_perms(store.domid, tx, given.texts[0]))


def _set_perms(store: XenStore, tx: int, given: Arguments) -> bytes:
    path, first = given.texts
    perms = [first, *decode_texts(given.rest)]
    store.set_perms(store.domid, tx, path, perms)
    return OK


def _watch(store: XenStore, tx: int, given: Arguments) -> bytes:
    store.watch(store.domid, tx, *given.texts)
    return OK


def _unwatch(store: XenStore, tx: int, given: Arguments) -> bytes:
    store.unwatch(store.domid, tx, *given.texts)
    return OK


def _reset_watches(store: XenStore, tx: int, given: Arguments) -> bytes:
    _require(given, "")
    store.reset_watches(store.domid, tx)
    return OK


def _transaction_start(store: XenStore, tx: int, given: Arguments) -> bytes:
    _require(given, "")
    return encode_texts((str(store.transaction_start(store.domid, tx)),))


def _transaction_end(store: XenStore, tx: int, given: Arguments) -> bytes:
    _require(given, "T", "F")
    store.transaction_end(store.domid, tx, given.texts[0] == "T")
    return OK


def _require(given: Arguments, *texts: str) -> None:
    if given.texts[0] not in texts:
        refuse(errno.EINVAL, f"{given.texts[0][:20]!r} is none of {texts}")


_PERFORM: Final[dict[int, Callable[[XenStore, int, Arguments], bytes]]] = {
    XS_READ: _read,
    XS_WRITE: _write,
    XS_MKDIR: _mkdir,
    XS_RM: _rm,
    XS_DIRECTORY: _directory,
    XS_DIRECTORY_PART: _directory_part,
    XS_GET_PERMS: _get_perms,
    XS_SET_PERMS: _set_perms,
    XS_WATCH: _watch,
    XS_UNWATCH: _unwatch,
    XS_RESET_WATCHES: _reset_watches,
    XS_TRANSACTION_START: _transaction_start,
    XS_TRANSACTION_END: _transaction_end,
}


class XenStoreService:
    """Serves the store to its guest over the ring page, ``page``, as writable bytes.

    What is on its way is plain, and migrates with the store: ``request`` is what was
    read of a request, ``response`` a message of which ``sent`` bytes were written.
    ``fatal`` says what the guest did, if it cannot be served any more.
    """

    def __init__(self, store: XenStore, page: memoryview) -> None:
        self.store = store
        self.request = b""
        self.response = b""
        self.sent = 0
        self.fatal = ""
        self._requests = Ring.of_requests(page)
        self._responses = Ring.of_responses(page)

    def process(self) -> bool:
        """Do what can be done now; tell whether a byte moved: the guest is to know.

        Raises ``CrashError`` where the store has QEMU's quirks and QEMU would end.
        """
        moved = False
        try:
            while not self.fatal:
                self._perform()
                if not self._move():
                    break
                moved = True
        except ProtocolError as error:
            self.fatal = str(error)
        return moved

    def _perform(self) -> None:
        """Fill the response: with an event before a reply."""
        while not self.response and (event := self.store.next_event(self.store.domid)):
            said = watch_event(event.path, event.token)
            if len(said.payload) <= XENSTORE_PAYLOAD_MAX:
                self.response = said.encode()
        if self.response:
            return
        message = message_in(self.request)
        if message is not None:
            self.request = b""
            self.response = answer(self.store, message).encode()

    def _move(self) -> bool:
        # What the guest broke shows before a byte moves: one that did is told of.
        wanted = min(missing_in(self.request), MESSAGE_MAX)
        self._requests.used()
        put = self._responses.put(memoryview(self.response)[self.sent :])
        self.sent += put
        if self.sent == len(self.response):
            self.response, self.sent = b"", 0
        taken = self._requests.take(wanted)
        self.request += taken
        return put + len(taken) > 0
