"""Verifies exported trails without Rackhand: `auditor.py <directory>... [--head <file>]... [--from <file>]...`.

A directory is what `rackhand audit export` writes: `keys.json`, and for each tree a folder with the parts
`checkpoints-<number>.jsonl` and `records-<number>.jsonl`.

`--head` is a checkpoint that was kept from an earlier audit: the first so many records must still be the same.
`--from` is one up to which a tree was verified before: the tree goes on from its frontier, and the records that it
covers are not looked at; they may be missing. Each is a line of a `checkpoints-` file.

Prints for each directory whether it is sound, what was verified and what was not. `--json` prints the same as an array
of `[sound, what was found]`. Ends with status 1 if one is not sound.
"""

import argparse
import base64
import hashlib
import json
import pathlib
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    pass


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Tree:
    """A growing tree of RFC 6962 section 2.1, as the roots of its perfect subtrees, the largest first."""

    def __init__(self, size=0, frontier=()):
        if len(frontier) != bin(size).count("1"):
            raise Wrong(f"{size} records have another frontier")
        self.size, self.frontier = size, list(frontier)

    def add(self, record):
        node, full = sha256(b"\x00", record), self.size
        while full & 1:
            node, full = sha256(b"\x01", self.frontier.pop(), node), full >> 1
        self.frontier.append(node)
        self.size += 1

    def root(self):
        if not self.frontier:
            return sha256()
        root = self.frontier[-1]
        for left in reversed(self.frontier[:-1]):
            root = sha256(b"\x01", left, root)
        return root


def verifier(vkey):
    """C2SP signed-note: <name>+<key id>+<base64 of type and key>."""
    name, key_id, key = vkey.split("+", 2)
    key = base64.b64decode(key)
    if key[0] != 1 or sha256(name.encode(), b"\n", key)[:4].hex() != key_id:
        raise Wrong(f"{name}: not an Ed25519 key")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(key[1:])


def opened(note, keys):
    """Origin, size and root of a signed note."""
    text, _, signatures = note.partition("\n\n")
    text += "\n"
    origin, size, hash_, *rest = text.split("\n")
    if rest != [""]:
        raise Wrong("a checkpoint has other lines")
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature)
        for known, key_id, key in keys:
            if (dash, name, signature[:4]) == ("\u2014", known, key_id) and name == origin:
                try:
                    key.verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise Wrong(f"{origin}: the signature of checkpoint {size} is not valid") from None
                return origin, int(size), base64.b64decode(hash_)
    raise Wrong(f"{origin}: checkpoint {size} is signed by no known key")


def lines(folder, kind):
    """The lines of all parts, without their ends. A part that is missing shows in what the lines say."""
    for part in sorted(folder.glob(f"{kind}-*.jsonl"), key=lambda part: int(part.stem.rpartition("-")[2])):
        with part.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    raise Wrong(f"{folder.name}: {part.name} is cut off")
                yield line[:-1]


def place(record):
    return record["era"], int(record["xid"]), int(record["id"])


def count_of(number, thing):
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


def findings(tree, sealed, checkpoints, first, grown, times, refused):
    """What was verified of a tree, and what was not: sentences."""
    verified = sealed - first
    said = [f"{tree}: {count_of(verified, 'record')} verified"]
    if verified:
        said[0] += f", number {first + 1} to {sealed} ({times[0]} to {times[1]})"
    said[0] += f", covered by {count_of(checkpoints, 'signed checkpoint')}"
    if first:
        said.append(f"Not verified again: the first {first}, which --from says were verified before")
    if grown > sealed:
        said.append(f"Not verified: the last {count_of(grown - sealed, 'record')}, which no checkpoint covers yet")
    if refused:
        said.append(
            f"Left aside: {count_of(refused, 'checkpoint')} that someone else stored and the control plane refused"
        )
    return ". ".join(said)


def beginning(tree, origin, keys, checkpoints):
    """The tree at a checkpoint of `--from`, and the place of its last record."""
    for checkpoint in checkpoints:
        named, size, root = opened(checkpoint["note"], keys)
        if named != origin:
            continue
        begun = Tree(size, [bytes.fromhex(hash_) for hash_ in checkpoint["frontier"]])
        if begun.root() != root:
            raise Wrong(f"{tree}: the frontier of checkpoint {checkpoint['number']} is not that of its root")
        return begun, tuple(int(part) for part in checkpoint["cursor"].split("."))
    return Tree(), (0, 0, 0)


def verify(directory, tree, log, keys, heads, begin, refused, dropped):
    """What was found. `dropped` gets the numbers of checkpoints of `lines` up to which records are no longer kept.
    `refused` gets the checkpoints, (tree, number), of which sealed records say that the control plane
    has refused them: somebody else stored them. Such a one need not be signed; the next signed one covers its records."""
    folder, origin = directory / tree, f"rackhand/{log}/{tree}"
    sealed, count, roots, unsigned = 0, 0, {}, {}
    for count, line in enumerate(lines(folder, "checkpoints"), 1):
        checkpoint = json.loads(line)
        if checkpoint["number"] != count:
            raise Wrong(f"{tree}: checkpoint {count} is missing")
        try:
            name, size, root = opened(checkpoint["note"], keys)
            if name != origin or size <= sealed:
                raise Wrong(f"{tree}: checkpoint {count} is of another log, or not after the one before")
        except (Wrong, ValueError) as wrong:
            unsigned[count] = wrong
            continue
        sealed, roots[size] = size, (root, "sealed")
    for head in heads:
        name, size, root = opened(head["note"], keys)
        if name != origin:
            continue
        if size > sealed:
            raise Wrong(f"{tree}: {size} records were sealed once, now {sealed}: the tail is cut")
        if roots.setdefault(size, (root, "sealed once"))[0] != root:
            raise Wrong(f"{tree}: the first {size} records are not those that were sealed once")
    grown, before = beginning(tree, origin, keys, begin)
    first, streams, times, hint = grown.size, {}, ["", ""], ""
    if tree == "lines" and max(dropped, default=0) > 0 and not first:
        hint = f"; months up to checkpoint {max(dropped)} are no longer kept: without them, verify --from that one"
    for line in lines(folder, "records"):
        record, text = json.loads(line), line.decode("utf-8")
        if first and place(record) <= before:
            continue
        if json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False) != text:
            raise Wrong(f"{tree}: record {grown.size} is not canonical")
        if record["tree"] != tree:
            raise Wrong(f"{tree}: record {grown.size} is of another tree")
        if place(record) <= before:
            raise Wrong(f"{tree}: record {grown.size} is out of order")
        before = place(record)
        streams.setdefault(record["stream"], []).append(record["n"])
        grown.add(line)
        if grown.size <= sealed:
            times = [times[0] or record["at"], record["at"]]
        if record["kind"] == "trail.checkpoint_refused" and grown.size <= sealed:
            told = json.loads(record["data"])
            refused.update((told["tree"], number) for number in told["numbers"])
        if record["kind"] == "trail.lines_dropped" and grown.size <= sealed:
            dropped.add(json.loads(record["data"])["checkpoint"] or 0)
        root, when = roots.get(grown.size, (None, None))
        if root not in (None, grown.root()):
            raise Wrong(f"{tree}: the first {grown.size} records are not those that were {when}{hint}")
    if sealed > grown.size:
        raise Wrong(f"{tree}: {sealed} records were sealed, {grown.size} are there{hint}")
    for number, wrong in unsigned.items():
        if (tree, number) not in refused:
            raise Wrong(f"{tree}: checkpoint {number} is not one of the control plane's: {wrong}")
    # From a checkpoint on, the beginnings of streams are not known.
    for stream, numbers in streams.items() if not first else ():
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            raise Wrong(f"{tree}: stream {stream} has gaps; if a later export has them, too, records were lost")
    return findings(tree, sealed, count - len(unsigned), first, grown.size, times, len(unsigned))


def verdict(directory, heads, begin):
    try:
        published = json.loads((directory / "keys.json").read_text("utf-8"))
        keys = [verifier(key["vkey"]) for key in published["checkpoints"]]
        refused, dropped = set(), set()
        found = [
            verify(directory, tree, published["log"], keys, heads, begin, refused, dropped)
            for tree in ("audit", "lines")
        ]
        return True, "\n".join(found)
    except Wrong as wrong:
        return False, str(wrong)
    except (ValueError, KeyError, TypeError, OSError) as unreadable:
        return False, f"{directory} cannot be read: {unreadable}"


def told(directory, sound, found, heads):
    """A verdict for people."""
    if not sound:
        return f"{directory}: NOT SOUND\n  {found}\n  Nothing after this was looked at."
    lines = [f"{directory}: sound", *(f"  {line}." for line in found.splitlines())]
    if not heads:
        lines.append(
            "  Not verified: whether the end was cut off together with its checkpoints. A checkpoint that was kept from an "
            "earlier audit shows it (--head)."
        )
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", nargs="+", type=pathlib.Path)
    arguments.add_argument("--head", action="append", default=[], type=pathlib.Path)
    arguments.add_argument("--from", action="append", default=[], type=pathlib.Path, dest="begin")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    heads, begin = ([json.loads(path.read_text("utf-8")) for path in paths] for paths in (given.head, given.begin))
    verdicts = [verdict(directory, heads + begin, begin) for directory in given.directory]
    if given.json:
        print(json.dumps(verdicts))
    else:
        for directory, (sound, found) in zip(given.directory, verdicts):
            print(told(directory, sound, found, heads + begin))
    sys.exit(0 if all(sound for sound, _ in verdicts) else 1)


if __name__ == "__main__":
    main()
