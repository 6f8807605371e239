"""Damage for tests: bytes, cells and JSON as a bad disk, a bad program or a bad mood would leave them."""

import json
import math
import random

from hdam.pipelines.errors import InputError

CELLS = (
    *("", " ", "0", "1", "-1", "7", "25", "1e9", "99999999999999999999", "1.5", "nan", "inf", "-inf", "1e400", "٣"),
    *("0 0 32 32", "8-8-24-24", "0-0-0-0", "a-b-c-d", "1-2-3", "-1--2--3--4", "0:3", "3:", ":", "9:1", "5:5"),
    *("train", "test", "val", "ada#1", "bob", "ada#1.mp4", "bob.mp4", "../bob.mp4", "/etc/passwd", ".", "..", "~", "#"),
    *("a\0b", "ü" * 300, "x" * 200_000, '"', "a,b", "=1+1", "\ufeff", "\u2028", "a\nb", "s3://bucket/x", "file:///x"),
)
VALUES = (
    None,
    0,
    -1,
    1e400,
    10**40,
    2**31 - 1,
    1.5,
    True,
    math.nan,
    "",
    "x",
    "../../x",
    "/x",
    "a\0b",
    "\ud800",
    [],
    {},
)


def damaged(data: bytes, seed: int) -> bytes:
    """`data` with one or two kinds of damage; another seed, another damage."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 2))):
        data = rng.choice((_cut, _flip, _flip_ends, _splice, _insert, _repeat, _count))(bytearray(data), rng)
    return data


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 3, 10, 50)) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _flip_ends(data: bytearray, rng: random.Random) -> bytes:
    """Headers and indices of files lie at their ends."""
    for _ in range(rng.choice((1, 2, 5)) if data else 0):
        place = rng.randrange(min(len(data), 700))
        data[rng.choice((place, -1 - place))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(data)


def _splice(data: bytearray, rng: random.Random) -> bytes:
    first = rng.randrange(len(data) + 1)
    return bytes(data[:first] + data[first + rng.randrange(1, 200) :])


def _insert(data: bytearray, rng: random.Random) -> bytes:
    first = rng.randrange(len(data) + 1)
    return bytes(data[:first] + rng.randbytes(rng.randrange(1, 100)) + data[first:])


def _repeat(data: bytearray, rng: random.Random) -> bytes:
    first, second, length = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1), rng.randrange(1, 300)
    return bytes(data[:first] + data[second : second + length] + data[first + length :])


def _count(data: bytearray, rng: random.Random) -> bytes:
    """Four bytes that may be a number become a very large, very small or negative one."""
    first = rng.randrange(len(data) + 1)
    number = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x80\0\0\0"))
    return bytes(data[:first] + number + data[first + 4 :])


def damaged_json(content: object, seed: int) -> bytes:
    """JSON of `content` in which one value is another, or is missing."""
    rng = random.Random(seed)
    copy = json.loads(json.dumps(content))
    places: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(copy)
    holder, key = rng.choice(places)
    if rng.random() < 0.25:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    return json.dumps(copy).encode()


def random_table(columns: tuple[str, ...], sound: tuple[str, ...], seed: int) -> bytes:
    """A CSV table of a few rows like `sound` with some cells of `CELLS`, columns missing or new, in some encoding."""
    rng = random.Random(seed)
    header = [column for column in columns if rng.random() > 0.03]
    lines = [",".join(header)]
    for _ in range(rng.choice((0, 1, 2, 5))):
        cells = dict(zip(columns, sound, strict=True))
        for column in rng.sample(columns, rng.choice((0, 1, 1, 2, len(columns)))):
            cells[column] = rng.choice(CELLS)
        cut = rng.choice((len(header), len(header), len(header), 1, 0))
        row = [cells[column] for column in header][:cut]
        lines.append(",".join(f'"{cell}"' if rng.random() < 0.5 else cell for cell in row))
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(lines) + rng.choice(("", "\n", "\n\n", '"'))
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-7")))
    return damaged(data, seed) if rng.random() < 0.2 else data


def is_refused(call) -> bool:
    """Whether `call` raises an InputError of one line; it may also succeed, but nothing else may happen."""
    try:
        call()
    except InputError as error:
        message = str(error)
        assert message.strip() and len(message.splitlines()) == 1, message
        return True
    return False
