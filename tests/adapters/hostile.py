"""What a hostile endpoint may send over a socket, by name."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping

from raw_server import CLOSE, Handler, dripping, hang, ok, pouring, sending

MIB = 1024 * 1024
KEY = "sk-never-to-be-shown-1234567890"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = OK + b"Content-Encoding: gzip\r\n\r\n"


def bomb(wbits: int, mib: int) -> bytes:
    """So many MiB of nothing, a thousandth of that when packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(mib)), packer.flush()])


def packed(encoding: str, content: bytes) -> bytes:
    return ok(content, f"Content-Encoding: {encoding}\r\n".encode())


TIMEOUT_S = 0.3
LATE = "no reply within"
INTERIM = "interim replies|no reply within"  # whichever is first on a slow machine
ENDLESS: Mapping[str, tuple[Handler, str]] = {
    "body": (pouring(CLOSE + b"\r\n", b"x" * 65_536), "longer than 16,777,216 bytes"),
    "body in chunks": (pouring(CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"), "longer than 16,777,216 bytes"),
    "gigabyte": (pouring(OK + b"Content-Length: 1073741824\r\n\r\n", b"x" * 65_536), "longer than 16,777,216 bytes"),
    "gzip bomb": (sending(packed("gzip", bomb(31, 300))), "longer than 16,777,216 bytes"),
    "deflate bomb": (sending(packed("deflate", bomb(15, 300))), "longer than 16,777,216 bytes"),
    "raw deflate bomb": (sending(packed("deflate", bomb(-15, 300))), "longer than 16,777,216 bytes"),
    "gzip of nothing": (pouring(GZIP, gzip.compress(b"") * 3_000), "Can not decode|longer than|no reply within"),
    "gzip blocks of nothing": (pouring(GZIP + gzip.compress(b"")[:10], b"\0\0\0\xff\xff" * 10_000), LATE),
    "chunks of one byte": (pouring(CHUNKED, b"1\r\nx\r\n" * 10_000), LATE),
    "chunk extension": (pouring(CHUNKED + b"1;", b"x" * 65_536), LATE),
    "chunk size": (pouring(CHUNKED, b"0" * 65_536), LATE),
    "headers": (pouring(OK, b"X-A: b\r\n" * 1_000), "Too many headers"),
    "trailers": (pouring(CHUNKED + b"0\r\n", b"X-A: b\r\n" * 1_000), "Too many headers"),
    "header": (pouring(OK + b"X: ", b"b" * 65_536), "Got more than 8190 bytes"),
    "status line": (pouring(b"HTTP/1.1 200 ", b"b" * 65_536), "Got more than 8190 bytes"),
    "zeros": (pouring(b"", bytes(65_536)), "Bad status line"),
    "empty lines": (pouring(b"", b"\r\n" * 30_000), LATE),
    "1xx": (pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000), INTERIM),
    "1xx with headers": (pouring(b"", (b"HTTP/1.1 103 Early\r\nLink: " + b"x" * 4_000 + b"\r\n\r\n") * 10), INTERIM),
    "drip of a body": (dripping(OK + b"Content-Length: 1000\r\n\r\n", 0.05), LATE),
    "drip of chunks": (dripping(CHUNKED, 0.05), LATE),
    "drip of a header": (dripping(OK + b"X: ", 0.05), LATE),
    "silence": (hang, LATE),
    "silence in the body": (sending(CHUNKED + b"5\r\nhello\r\n"), LATE),
}

BROKEN: Mapping[str, bytes] = {
    "length of 23 digits": OK + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "length below 0": OK + b"Content-Length: -1\r\n\r\nabc",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "length too long": CLOSE + b"Content-Length: 9\r\n\r\nabc",
    "chunk of no size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "chunk below 0": CHUNKED + b"-5\r\nabc\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "cut gzip": CLOSE + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"{}" * 100)[:10],
    "no gzip": packed("gzip", b"nope"),
    "brotli that is none": packed("br", b"nope"),
    "zstd that is none": packed("zstd", b"nope"),
    "status of five digits": b"HTTP/1.1 99999 X\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "frames of HTTP/2": b"\0\0\x12\x04\0\0\0\0\0close\r\n\r\n",
    "no HTTP": b'{"choices": []}',
    "key as a header without a colon": OK + b"Authorization Bearer " + KEY.encode() + b"\r\n\r\n",
    "key in a header with a zero": OK + b"X: \0Bearer " + KEY.encode() + b"\r\n\r\n",
    "key in the status line": b"HTTP/1.1 2oo Bearer " + KEY.encode() + b"\r\n\r\n",
    "key in too long a header": OK + b"X: " + b"b" * 80 + KEY.encode() * 1_000 + b"\r\n\r\n",
    "key as the size of a chunk": CHUNKED + KEY.encode() + b"\r\n",
}
