#!/usr/bin/env python3
"""Reads every golden message of each version, and writes it again from what its file says.

A second implementation of ../PROTOCOL.md that needs nothing but `struct`. Run it without arguments; it ends with 1 and says
where if anything differs.
"""

import ast
import re
import struct
import sys
from pathlib import Path

OLDEST = 1
ONE_FRAME, CONTENT, METADATA, HEADER = 4096, 65536, 163840, 512
FIELD_BYTES, FIELDS, NAME, SERVICES, TEXT = 131072, 1024, 253, 1024, 1024
REDIRECTS, HOPS, KEY = 16, 32, 32
# By version: how many numbers a reason of BYE and any other may have.
BYES, REASONS = {1: 7, 2: 9}, {1: 23, 2: 26}
QUARANTINED = 8

ROUTING_HEADER = struct.Struct("<BBHIQQHBBBBBBIIIIIIII16sQ16s16s8sQ")
NAMES = (
    "version kind header_length metadata_length correlation epoch flags hops attempt priority scope spill trace_flags "
    "deadline_ms hold_ms max_round_trip_ms waiters origin_site window content_length reserved "
    "flight affinity service trace parent credit"
).split()
LENGTHS = ("header_length", "metadata_length", "content_length")
IN_HEX = ("service", "trace", "parent")

KINDS = {
    1: "HELLO", 2: "WELCOME", 3: "HEARTBEAT", 4: "CREDIT", 5: "DEMAND", 6: "RECLAIM", 7: "RETURN", 8: "BYE", 9: "DRAIN",
    10: "REDIRECT", 11: "UNSUPPORTED", 12: "ANNOUNCE", 17: "CHUNK", 18: "WINDOW", 19: "INTERIM", 20: "RESPONSE",
    21: "UPGRADE", 22: "END", 23: "CANCEL", 24: "UPDATE", 25: "REJECT", 26: "VERDICT", 27: "VARY", 32: "PURGE",
    33: "PURGED", 34: "REPORT", 35: "GRANT", 36: "EXPLAIN", 128: "REQUEST",
}  # fmt: skip
NUMBERS = {name: number for number, name in KINDS.items()}

# The parts of each kind's metadata: a letter of `struct`, or a type of PROTOCOL.md.
RESPONSE = [("status", "H"), ("field", "fields")]
LAYOUTS = {
    "HELLO": [("oldest", "B"), ("newest", "B"), ("node", "name"), ("instance", "Q"), ("lane", "H"), ("heartbeat_ms", "I"),
              ("window", "I"), ("capacity", "I"), ("service", "services")],
    "WELCOME": [("version", "B"), ("node", "name"), ("instance", "Q"), ("site", "name"), ("heartbeat_ms", "I"),
                ("window", "I")],
    "HEARTBEAT": [("sequence", "I"), ("echo", "I"), ("echo_delay_us", "I"), ("outstanding", "I"), ("capacity", "I"),
                  ("service_time_us", "I"), ("queue_time_us", "I"), ("cpu_permille", "H")],
    "DEMAND": [("wanted", "I")],
    "RECLAIM": [("wanted", "I")],
    "ANNOUNCE": [("service", "services"), ("withdrawn", "services")],
    "REDIRECT": [("broker", "brokers")],
    "EXPLAIN": [("hop", "hops")],
    "BYE": [("reason", "bye")],
    "UNSUPPORTED": [("kind", "B")],
    "WINDOW": [("limit", "Q")],
    "INTERIM": RESPONSE,
    "RESPONSE": RESPONSE,
    "UPGRADE": RESPONSE,
    "END": [("outcome", "outcome")],
    "CANCEL": [("reason", "reason")],
    "REJECT": [("reason", "reason"), ("retry_after_ms", "I"), ("detail", "text")],
    "REQUEST": [("method", "bytes"), ("secure", "bool"), ("authority", "bytes"), ("target", "bytes"), ("field", "fields")],
}  # fmt: skip


class Malformed(Exception):
    """Why bytes are not a message: the name of the error."""


def require(condition, error):
    if not condition:
        raise Malformed(error)


# Bytes to values


class Reader:
    """Reads metadata front to back, as far as a version knows it."""

    def __init__(self, left, newest):
        self.left, self.newest = left, newest

    def take(self, length):
        require(length <= len(self.left), "Truncated")
        taken, self.left = self.left[:length], self.left[length:]
        return taken

    def number(self, letter):
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def bytes(self):
        return self.take(self.number("H"))

    def name(self):
        name = self.bytes()
        require(1 <= len(name) <= NAME and all(0x21 <= byte <= 0x7E for byte in name), "Name")
        return name

    def text(self):
        text = self.bytes()
        require(len(text) <= TEXT, "TooLong")
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise Malformed("Text") from error
        return text

    def key(self):
        key = self.bytes()
        require(not key or KEY <= len(key), "Truncated")
        require(len(key) <= KEY, "Excess")
        return key

    def name_or_empty(self):
        if self.left[:2] == bytes(2):
            return self.bytes()
        return self.name()

    def brokers(self):
        count = self.number("H")
        require(count <= REDIRECTS, "TooLong")
        return [(self.text(), self.key(), self.name()) for _ in range(count)]

    def hops(self):
        count = self.number("H")
        require(count <= HOPS, "TooLong")
        return [(*map(self.number, "BIII"), self.name_or_empty()) for _ in range(count)]

    def services(self):
        count = self.number("H")
        require(count <= SERVICES, "TooLong")
        names = [self.name() for _ in range(count)]
        require(all(name == name.lower() for name in names), "Name")
        return names

    def fields(self):
        require(len(self.left) <= FIELD_BYTES, "TooLong")
        count = self.number("H")
        require(count <= FIELDS, "TooLong")
        return [(self.bytes(), self.bytes()) for _ in range(count)]

    def one_of(self, numbers):
        number = self.number("B")
        require(number in numbers, "Value")
        return number

    def value(self, type):
        if len(type) == 1:
            return self.number(type)
        reasons = REASONS[self.newest]
        numbers = {"bool": range(2), "bye": range(BYES[self.newest]), "reason": range(1, reasons), "outcome": range(reasons)}.get(type)
        return self.one_of(numbers) if numbers else getattr(self, type)()


def following(type, value):
    """The part that follows one of this type only if it has this value."""
    if type == "outcome":
        return [("detail", "text") if value else ("field", "fields")]
    return [("milliseconds", "I")] if type == "bye" and value == QUARANTINED else []


def decode_metadata(kind, metadata, newest):
    if kind not in LAYOUTS:
        return {"bytes": metadata} if metadata else {}
    reader, parts = Reader(metadata, newest), {}
    for name, type in LAYOUTS[kind]:
        parts[name] = reader.value(type)
        for name, type in following(type, parts[name]):
            parts[name] = reader.value(type)
    require(not reader.left, "Excess")
    return parts


def decode(frames, newest):
    frame, *second = frames
    require(frame, "Truncated")
    require(OLDEST <= frame[0] <= newest, "Version")
    require(ROUTING_HEADER.size <= len(frame), "Truncated")
    header = dict(zip(NAMES, ROUTING_HEADER.unpack_from(frame)))
    lengths = [header.pop(name) for name in LENGTHS]
    require(ROUTING_HEADER.size <= lengths[0], "HeaderLength")
    require(all(length <= limit for length, limit in zip(lengths, (HEADER, METADATA, CONTENT))), "TooLong")
    require(header.pop("reserved") == 0, "Reserved")
    require(header["priority"] < 3 and header["scope"] < 4 and header["spill"] < 3, "Value")
    header["kind"] = KINDS.get(header["kind"], str(header["kind"]))
    header["flight"] = int.from_bytes(header["flight"], "little")

    metadata_end = lengths[0] + lengths[1]
    wanted = [metadata_end, lengths[2]] if second else [sum(lengths)]
    for length, found in zip(wanted, frames):
        require(length <= len(found), "Truncated")
        require(len(found) <= length, "Excess")
    require(has_second_frame(header["kind"], *lengths) == bool(second), "Framing")
    return {
        "header": header,
        "extension": frame[ROUTING_HEADER.size : lengths[0]],
        "metadata": decode_metadata(header["kind"], frame[lengths[0] : metadata_end], newest),
        "content": second[0] if second else frame[metadata_end:],
    }


def has_second_frame(kind, header_length, metadata_length, content_length):
    is_long = ONE_FRAME < header_length + metadata_length + content_length
    return 0 < content_length and (kind == "CHUNK" or is_long)


# Values to bytes


def prefixed(value):
    return struct.pack("<H", len(value)) + value


def encode_part(type, value):
    if type == "fields":
        return struct.pack("<H", len(value)) + b"".join(prefixed(part) for field in value for part in field)
    if type == "services":
        return struct.pack("<H", len(value)) + b"".join(map(prefixed, value))
    if type == "brokers":
        return struct.pack("<H", len(value)) + b"".join(prefixed(part) for broker in value for part in broker)
    if type == "hops":
        return struct.pack("<H", len(value)) + b"".join(struct.pack("<BIII", *hop[:4]) + prefixed(hop[4]) for hop in value)
    if type in ("bytes", "name", "text"):
        return prefixed(value)
    return struct.pack("<" + (type if len(type) == 1 else "B"), value)


def encode_metadata(kind, parts):
    if kind not in LAYOUTS:
        return parts.get("bytes", b"")
    metadata = b""
    for name, type in LAYOUTS[kind]:
        metadata += encode_part(type, parts[name])
        for name, type in following(type, parts[name]):
            metadata += encode_part(type, parts[name])
    return metadata


def encode(message):
    header, metadata = message["header"], encode_metadata(message["header"]["kind"], message["metadata"])
    lengths = ROUTING_HEADER.size + len(message["extension"]), len(metadata), len(message["content"])
    values = dict(header, reserved=0, **dict(zip(LENGTHS, lengths)))
    values["kind"] = NUMBERS.get(header["kind"]) or int(header["kind"])
    values["flight"] = header["flight"].to_bytes(16, "little")
    frame = ROUTING_HEADER.pack(*(values[name] for name in NAMES)) + message["extension"] + metadata
    if has_second_frame(header["kind"], *lengths):
        return [frame, message["content"]]
    return [frame + message["content"]]


# Files


def quoted(value):
    """The bytes strings in a line: `"…"`, or `"…" * 100`."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"(?: \* (\d+))?', value)
    return [ast.literal_eval('b"' + text + '"') * int(times or 1) for text, times in found]


def read(path):
    """The lines of a file as keys and lists of values."""
    entries = {}
    for line in path.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            key, value = line.split(" =", 1)
            entries.setdefault(key, []).append(value.strip())
    frames = [bytes.fromhex("".join(entries.pop(key))) for key in ("frame.1", "frame.2") if key in entries]
    return entries, frames


def described(entries):
    """The message that a file describes."""
    header = {name: 0 for name in NAMES if name not in LENGTHS + IN_HEX + ("reserved",)}
    header.update({name: bytes(length) for name, length in zip(IN_HEX, (16, 16, 8))})
    message = {"header": header, "extension": b"", "metadata": {}, "content": b""}
    for key, values in entries.items():
        if key == "extension":
            message[key] = bytes.fromhex(values[0])
        elif key == "content":
            message[key] = quoted(values[0])[0]
        elif key == "kind":
            header[key] = values[0]
        elif key.startswith("metadata."):
            message["metadata"][key.removeprefix("metadata.")] = part(key, values)
        else:
            header[key] = bytes.fromhex(values[0]) if key in IN_HEX else int(values[0])
    parts = message["metadata"]
    # Lists without a line are empty.
    if header["kind"] in ("HELLO", "ANNOUNCE", "REDIRECT", "EXPLAIN"):
        for name, type in LAYOUTS[header["kind"]]:
            if type in ("services", "brokers", "hops"):
                parts.setdefault(name, [])
    elif header["kind"] in ("REQUEST", "RESPONSE", "INTERIM", "UPGRADE") or parts.get("outcome") == 0:
        parts.setdefault("field", [])
    return message


def part(key, values):
    if key in ("metadata.field", "metadata.broker"):
        return [tuple(quoted(value)) for value in values]
    if key == "metadata.hop":
        return [(*map(int, value.split()[:4]), quoted(value)[0]) for value in values]
    if key in ("metadata.service", "metadata.withdrawn"):
        return [quoted(value)[0] for value in values]
    if key == "metadata.bytes":
        return bytes.fromhex(values[0])
    return quoted(values[0])[0] if values[0].startswith('"') else int(values[0])


def check(folder, newest):
    golden, malformed, wrong = sorted(folder.glob("*.txt")), sorted(folder.glob("malformed/*.txt")), []
    for path in golden:
        entries, frames = read(path)
        message = described(entries)
        if decode(frames, newest) != message:
            wrong.append(f"{path.name}: read as {decode(frames, newest)}, described as {message}")
        if encode(message) != frames:
            wrong.append(f"{path.name}: written as {[frame.hex() for frame in encode(message)]}")
    for path in malformed:
        entries, frames = read(path)
        try:
            wrong.append(f"{path.name}: read as {decode(frames, newest)}")
        except Malformed as error:
            if [str(error)] != entries["error"]:
                wrong.append(f"{path.name}: refused as {error}")
    print(f"{folder.name}: {len(golden)} messages, {len(malformed)} malformed")
    return wrong


if __name__ == "__main__":
    complaints = [wrong for version in (1, 2) for wrong in check(Path(__file__).parent / f"v{version}", version)]
    sys.exit("\n".join(complaints) or None)
