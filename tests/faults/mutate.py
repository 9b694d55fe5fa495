"""Damaged and hostile versions of a valid file: its bytes, and what they mean as JSON, JSON lines, CSV, TOML,
safetensors or npy."""

import json
import re
import struct

ODD = [
    None, True, False, 0, -1, 1, 2, 10**6, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, -1e-320,
    float("inf"), float("-inf"), float("nan"), "", "a", "0", "\x00", "\x1b[2J", "\ud800", "../../x", "é" * 300,
    [], {}, [[]], [None], {"": None}, {"a": {"a": []}}, [1, "a"], list(range(40)),
]  # fmt: skip
TEXTS = [
    b"1e999", b"-1", b"99999999999999999999", b"NaN", b"Infinity", b"null", b"true", b'""', b"[]", b"{}", b"\xff\xfe",
    b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b"\r", b"\n\n", b'"', b"'", b",", b";", b"\t", b"1_0", b"0x10",
    b"\\ud800", b"[" * 5000, b'{"a":' * 5000, b"9" * 5000,
]  # fmt: skip


def mutated(rng, data, kind):
    """Another version of `data`, of a file of this kind. rng: random.Random."""
    if kind in OF_KIND and rng.random() < 0.6:
        try:
            return OF_KIND[kind](rng, data)
        except (ValueError, KeyError, IndexError, struct.error, RecursionError, UnicodeError):
            pass  # it is damaged already
    return of_bytes(rng, data)


def of_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        end = min(end, at + rng.choice((1, 4, 64, 4096, len(data))))
        what = rng.randrange(9)
        if what == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:end] = bytes(end - at)
        elif what == 2:
            del data[at:]
        elif what == 3:
            data[at:at] = rng.choice(TEXTS)
        elif what == 4:
            data[at:end] = rng.randbytes(min(end - at, 64))
        elif what == 5:
            data[at:at] = data[at : min(end, at + 65536)]
        elif what == 6:
            del data[at:end]
        elif what == 7:
            numbers = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:200_000])))
            if numbers:
                one = rng.choice(numbers)
                data[one.start() : one.end()] = rng.choice(TEXTS[:8])
        elif len(data) >= 8:  # a length of 8, 4 or 2 bytes
            size = rng.choice((8, 4, 2))
            start = rng.choice((0, rng.randint(0, len(data) - size)))
            value = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), len(data) % 2 ** (8 * size)))
            data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(data)


def of_value(rng, value):
    """JSON with a node replaced, dropped, doubled, renamed, wrapped or nested deeply."""
    paths = list(_nodes(value))
    path = rng.choice(paths)
    if not path:
        return rng.choice(ODD) if rng.random() < 0.3 else value
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    what = rng.randrange(8)
    if what <= 2:
        parent[key] = rng.choice(ODD)
    elif what == 3:
        del parent[key]
    elif what == 4:
        parent[key] = {"x": parent[key]} if rng.random() < 0.5 else [parent[key]] * rng.choice((1, 2, 3))
    elif what == 5:
        deep = []
        for _ in range(rng.choice((50, 150, 400))):
            deep = [deep]
        parent[key] = deep
    elif what == 6 and isinstance(parent, dict):
        parent[rng.choice(("", "x", key + "x", "\ud800", "__metadata__"))] = parent.pop(key)
    elif isinstance(parent, list):
        parent.insert(0, parent[key])
    else:
        other = value
        for step in rng.choice(paths):
            other = other[step]
        parent[key] = json.loads(json.dumps(other))
    return value


def of_json(rng, data):
    value = json.loads(data)
    if isinstance(value, dict) and rng.random() < 0.9:
        value.pop("checksum", None)  # else nothing behind the checksum would be met
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = of_value(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1:
        text = text.replace("{", '{"files": 1, "files": 2, ', 1)
    return text.encode("utf-8", "surrogatepass")


def of_lines(rng, data):
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if lines[at]:
        lines[at] = of_json(rng, lines[at])
    return b"\n".join(lines)


def of_csv(rng, data):
    mark = b";" if data.count(b";") > data.count(b",") else b","
    rows = [line.split(mark) for line in data.split(b"\n")]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = 0 if rng.random() < 0.4 else rng.randrange(len(rows))
        row = rows[at]
        what = rng.randrange(8)
        if what <= 2 and row:
            odd = rng.choice(ODD)
            row[rng.randrange(len(row))] = rng.choice((rng.choice(TEXTS), str(odd).encode("utf-8", "replace")))
        elif what == 3 and row:
            row.pop(rng.randrange(len(row)))
        elif what == 4:
            row.append(rng.choice((b"", b"x", b'"')))
        elif what == 5:
            rows.insert(at, list(rng.choice(rows)))
        elif what == 6:
            del rows[at]
            rows = rows or [[b""]]
        else:
            number = rng.randrange(max(len(rows[0]), 1))
            cells = [own[number] for own in rows if len(own) > number]
            for own in rows:
                own.append(rng.choice(cells) if cells else b"")
    mark = rng.choice((mark, mark, mark, b";", b"\t"))
    return b"\n".join(mark.join(row) for row in rows)


def of_toml(rng, data):
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    key, equals, _ = lines[at].partition(b"=")
    if equals:
        odd = json.dumps(rng.choice(ODD)).encode("utf-8", "replace")
        lines[at] = key + b"= " + rng.choice((odd, b"nan", b"-inf", b"1979-05-27", b"[[1], 'a']", b"{ a = 1 }", b"''"))
    elif rng.random() < 0.5:
        del lines[at]
    else:
        lines.insert(at, rng.choice(lines))
    return b"\n".join(lines)


def of_safetensors(rng, data):
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if rng.random() < 0.9:
        header.get("__metadata__", {}).pop("checksum", None)
    what = rng.random()
    facts = header.get("__metadata__", {})
    if what < 0.4 and facts:  # JSON within JSON, as logits have it
        key = rng.choice(list(facts))
        facts[key] = of_json(rng, facts[key].encode()).decode("utf-8", "replace")
    elif what < 0.7:  # shapes that fit the bytes, but not each other
        own = header[rng.choice([name for name in header if name != "__metadata__"])]
        shape = own["shape"]
        own["shape"] = rng.choice((shape[::-1], [*shape, 1], [1, *shape], [own["shape"][0] if shape else 1]))
        if rng.random() < 0.4:
            own["dtype"] = rng.choice(("F32", "I32", "U32", "F64", "I64", "BF16", "F16", "U8", "I8", "BOOL", "F8_E4M3"))
    else:
        header = of_value(rng, header)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    body = data[8 + size :]
    if rng.random() < 0.2:
        body = of_bytes(rng, body)
    return len(text).to_bytes(8, "little") + text + body


def of_npy(rng, data):
    """The header's text, of an npy alone or of the first one in an npz that is stored."""
    at = data.index(b"\x93NUMPY")
    size = int.from_bytes(data[at + 8 : at + 10], "little")
    text = data[at + 10 : at + 10 + size]
    kinds = b"|O", b"<f4", b"<i8", b"|S3", b"<U2", b"<c16", b"|b1", b"<M8", b"V0", b"xx"
    shapes = b"(99999999999999,)", b"(-1, 3)", b"()", b"(0, 0)", b"(1.5,)", b"(('a'))"
    new = rng.choice((
        text.replace(b"<f8", rng.choice(kinds)),
        re.sub(rb"\((.*?)\)", rng.choice(shapes), text),
        text.replace(b"False", rng.choice((b"True", b"None", b"[]", b"1" * 50))),
        of_bytes(rng, text),
    ))[:60_000]  # fmt: skip
    return data[: at + 8] + struct.pack("<H", len(new)) + new + data[at + 10 + size :]


def _nodes(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield from _nodes(value[key], (*path, key))


OF_KIND = {
    "json": of_json,
    "jsonl": of_lines,
    "csv": of_csv,
    "toml": of_toml,
    "safetensors": of_safetensors,
    "npy": of_npy,
}
