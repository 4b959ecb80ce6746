"""CBOR as this protocol uses it: a strict subset, scanned before it is decoded.

A frame's body is one definite array (SPEC §2). `decode` first walks the bytes
without building anything and refuses what could amplify: too many items, too deep,
tags, floats, indefinite lengths, long text, trailing bytes; only then cbor2 builds
objects. Large byte strings are never copied: decode cuts them out as views of
the frame, and encode sends the caller's own buffers between the encoded pieces.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from sys import maxsize
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import cbor2

from .errors import ProtocolError

if TYPE_CHECKING:
    Buffer: TypeAlias = bytes | bytearray | memoryview[int]
else:
    Buffer = bytes | bytearray | memoryview

ITEMS_MAX = 4_096  # a page of a list stays below; 1 MB of empty maps would become 74 MB of objects
DEPTH_MAX = 6
TEXT_BYTES_MAX = 4_096
# Of all texts of a request: Python takes four times the bytes of a text in which one character is wide. 1,000 names are 200 kB.
REQUEST_TEXTS_BYTES_MAX = 1 << 20
CUT_BYTES_MIN = 1_024  # below it, a copy is cheaper than one more buffer

_BYTES, _TEXT, _ARRAY, _MAP, _SIMPLE = 2, 3, 4, 5, 7
_FALSE, _TRUE, _NULL = 20, 21, 22
_UNDEFINED = b"\xf7"
_ARGUMENT_BYTES = {24: 1, 25: 2, 26: 4, 27: 8}
_U32 = Struct(">I")


class Gathered(NamedTuple):
    """One byte string of ``size`` bytes that lies in several buffers."""

    parts: Sequence[Buffer]
    size: int


class _Cut(NamedTuple):
    item: int  # its place in the outermost array
    start: int  # of the string's head
    content: int
    end: int


def scan(body: "memoryview[int]", texts_bytes_max: int = maxsize) -> list[_Cut]:
    """Check that ``body`` is exactly one allowed array; return its large outermost byte strings.

    ``texts_bytes_max``: of all its texts together. Raises ProtocolError, in time and memory bounded by ITEMS_MAX, whatever the
    bytes are.
    """
    size = len(body)
    position = items = index = texts_bytes = 0
    open_containers: list[int] = []  # items still to come, outermost first
    cuts: list[_Cut] = []
    while True:
        if position >= size:
            raise ProtocolError("truncated frame: an item is missing")
        start = position
        major, argument = body[position] >> 5, body[position] & 31
        position += 1
        if extra := _ARGUMENT_BYTES.get(argument, 0):
            if position + extra > size:
                raise ProtocolError("truncated frame: an item's length is missing")
            argument = int.from_bytes(body[position : position + extra], "big") if major != _SIMPLE else 255
            position += extra
        elif argument > 27:
            raise ProtocolError("indefinite lengths are not allowed")
        items += 1
        if items > ITEMS_MAX:
            raise ProtocolError(f"more than {ITEMS_MAX} CBOR items in a frame")
        if not open_containers and (major != _ARRAY or items > 1):
            raise ProtocolError("a frame is one CBOR array")
        opened = 0
        if major == _BYTES or major == _TEXT:
            texts_bytes += argument if major == _TEXT else 0
            if major == _TEXT and (argument > TEXT_BYTES_MAX or texts_bytes > texts_bytes_max):
                raise _too_much_text(argument, texts_bytes_max)
            content, position = position, position + argument
            if position > size:
                raise ProtocolError("truncated frame: a string is cut off")
            if major == _BYTES and argument >= CUT_BYTES_MIN and len(open_containers) == 1:
                cuts.append(_Cut(index, start, content, position))
        elif major == _ARRAY or major == _MAP:
            opened = argument if major == _ARRAY else 2 * argument
            if opened > ITEMS_MAX:
                raise ProtocolError(f"more than {ITEMS_MAX} CBOR items in a frame")
            if len(open_containers) >= DEPTH_MAX:
                raise ProtocolError(f"CBOR nested deeper than {DEPTH_MAX}")
        elif major == 6 or (major == _SIMPLE and argument not in (_FALSE, _TRUE, _NULL)):
            raise ProtocolError("tags, floats and other simple values are not allowed")
        if items > 1:
            open_containers[-1] -= 1
            index += len(open_containers) == 1
        if major == _ARRAY or major == _MAP:
            open_containers.append(opened)
        while open_containers and open_containers[-1] == 0:
            open_containers.pop()
        if not open_containers:
            break
    if position != size:
        raise ProtocolError(f"{size - position} bytes behind the end of the array")
    return cuts


def _too_much_text(text_bytes: int, texts_bytes_max: int) -> ProtocolError:
    if text_bytes > TEXT_BYTES_MAX:
        return ProtocolError(f"a text is longer than {TEXT_BYTES_MAX} bytes")
    return ProtocolError(f"texts of more than {texts_bytes_max} bytes in a frame")


def decode(body: "memoryview[int]", texts_bytes_max: int = maxsize) -> list[Any]:
    """Decode one frame's body. Byte strings of CUT_BYTES_MIN or more are views of ``body``.

    ``texts_bytes_max`` as of `scan`. Raises ProtocolError for anything but one allowed array, nothing else.
    """
    cuts = scan(body, texts_bytes_max)
    skeleton: Buffer = body
    if cuts:
        pieces: list[Buffer] = []
        position = 0
        for cut in cuts:
            pieces += (body[position : cut.start], _UNDEFINED)
            position = cut.end
        pieces.append(body[position:])
        skeleton = b"".join(pieces)
    items: list[Any] = decode_value(skeleton)
    for cut in cuts:
        items[cut.item] = body[cut.content : cut.end]
    return items


def decode_value(data: Buffer) -> Any:
    """Decode one value that was scanned, or that this side wrote itself. Raises ProtocolError."""
    try:
        return cbor2.loads(
            data,
            max_depth=DEPTH_MAX + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, ValueError):
        raise ProtocolError("not valid CBOR: text that is not UTF-8, or a map with a key twice or of another type") from None


def encode_value(value: Any) -> bytes:
    """One value's bytes, in the shortest form."""
    return cbor2.dumps(value)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for code, width in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * width:
            return bytes((major << 5 | code,)) + argument.to_bytes(width, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


def encode_frame(items: Iterable[Any]) -> list[Buffer]:
    """One frame: u32 length and the array of ``items``, as buffers to send one behind the other.

    Large byte strings and `Gathered` ones are passed on as they are, not copied:
    they must not change until the frame is sent.
    """
    items = tuple(items)
    first = small = bytearray(4) + _head(_ARRAY, len(items))
    buffers: list[Buffer] = [first]
    for item in items:
        if isinstance(item, Gathered):
            small += _head(_BYTES, item.size)
            small = bytearray()
            buffers += (*item.parts, small)
        elif type(item) is memoryview or (type(item) in (bytes, bytearray) and len(item) >= CUT_BYTES_MIN):
            small += _head(_BYTES, len(item))
            small = bytearray()
            buffers += (item, small)
        else:
            small += cbor2.dumps(item)
    _U32.pack_into(first, 0, sum(map(len, buffers)) - 4)
    return [buffer for buffer in buffers if len(buffer) > 0]
