"""BMCs with the habits of BMCs in the field, all of them in one process. Written from the IPMI specification (2.0,
revision 1.1; sections in brackets); it shares nothing with the client that is tested.

stdin: a JSON object, name to BMC. stdout: one JSON object, name to UDP port on 127.0.0.1; it serves until it is killed.
A BMC is {"user", "password", "sdr": [hex], "readings": {number: completion code and data}, "sel": [hex],
"fru": {device: hex}, "answers": {"netfn command": completion code and data}, "quirks": {...}}; `Bmc` names the quirks
where they act. It speaks cipher suite 3 and nothing else.
"""

import hashlib
import hmac
import json
import os
import selectors
import socket
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RMCP = b"\x06\x00\xff\x07"
GUID = bytes(range(1, 17))
OPEN, OPENED, RAKP1, RAKP2, RAKP3, RAKP4 = range(0x10, 0x16)
UNKNOWN, TOO_MUCH, OUT_OF_RANGE, ABSENT, INVALID = 0xC1, 0xCA, 0xC9, 0xCB, 0xCC
SUITE_3 = b"".join(bytes([kind, 0, 0, 8, 1, 0, 0, 0]) for kind in range(3))


def sha1(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha1).digest()


def checksum(data):
    return bytes([-sum(data) & 0xFF])


def packet(kind, session, sequence, payload):
    return b"\x06" + struct.pack("<BIIH", kind, session, sequence, len(payload)) + payload


class Session:
    """One login [13.15 to 13.24] and what is sealed with its keys [13.28, 13.29]."""

    def __init__(self, bmc, console, own):
        self.bmc, self.console, self.own, self.sequence = bmc, console, own, 0
        self.key = bmc.password.ljust(20, b"\0")

    def rakp2(self, body):
        role, length = body[24], body[27]
        self.remote, self.random = body[8:24], os.urandom(16)
        name = body[28:28 + length]
        # Role and name as they came, and as this BMC puts them into its codes.
        self.came = bytes([role, length]) + name
        if self.bmc.quirk("name_padded"):
            name = name.ljust(16, b"\0")
        if self.bmc.quirk("role_without_lookup_bit"):
            role &= 0x0F
        self.used = bytes([role, length]) + name
        code = sha1(self.key, self.console, self.own, self.remote, self.random, GUID, self.used)
        return self.random + GUID + code

    def rakp4(self, body):
        """The integrity check value; none when the proof is wrong."""
        if not hmac.compare_digest(body[8:28], sha1(self.key, self.random, self.console, self.came)):
            return None
        session_key = sha1(self.key, self.remote, self.random, self.used)
        self.integrity, self.encryption = (sha1(session_key, bytes([n]) * 20) for n in (1, 2))
        check = sha1(session_key, self.remote, self.own, GUID)
        return check[:self.bmc.quirk("rakp4_length", 12)]

    def cipher(self, iv):
        return Cipher(algorithms.AES(self.encryption[:16]), modes.CBC(iv))

    def open(self, sealed):
        aes = self.cipher(sealed[:16]).decryptor()
        plain = aes.update(sealed[16:]) + aes.finalize()
        return plain[:-1 - plain[-1]]

    def seal(self, message):
        self.sequence += 1
        pad = -(len(message) + 1) % 16
        iv = os.urandom(16)
        aes = self.cipher(iv).encryptor()
        sealed = iv + aes.update(message + bytes(range(1, pad + 1)) + bytes([pad])) + aes.finalize()
        console = int.from_bytes(self.console, "little")
        signed = packet(0xC0, console, self.sequence, sealed)
        fill = -(len(signed) + 2) % 4
        signed += b"\xff" * fill + bytes([fill, 7])
        return RMCP + signed + sha1(self.integrity, signed)[:12]


class Bmc:
    def __init__(self, spec):
        self.user, self.password = spec["user"].encode(), spec["password"].encode()
        self.quirks = spec.get("quirks", {})
        unhex = bytes.fromhex
        self.sdr = [unhex(record) for record in spec.get("sdr", [])]
        self.sel = [unhex(entry) for entry in spec.get("sel", [])]
        self.readings = {int(number): unhex(data) for number, data in spec.get("readings", {}).items()}
        self.fru = {int(device): unhex(data) for device, data in spec.get("fru", {}).items()}
        self.answers = {unhex(code): unhex(data) for code, data in spec.get("answers", {}).items()}
        self.users = {int(slot): user for slot, user in self.quirk("users", {"2": [spec["user"], 0x34]}).items()}
        self.lost = list(self.quirk("loses_first", []))
        self.sessions = {}

    def quirk(self, name, usual=None):
        return self.quirks.get(name, usual)

    # Commands: completion code and data.

    def command(self, function, code, lun, data):
        fixed = self.answers.get(bytes([function, code]))
        if fixed:
            return fixed[0], fixed[1:]
        answer = {
            (0x06, 0x38): self.capabilities, (0x06, 0x54): self.suites, (0x06, 0x01): self.device,
            (0x06, 0x3B): self.privilege, (0x06, 0x44): self.access, (0x06, 0x46): self.name,
            (0x0A, 0x20): self.sdr_info, (0x0A, 0x23): self.sdr_part,
            (0x0A, 0x40): self.sel_info, (0x0A, 0x43): self.sel_entry,
            (0x0A, 0x10): self.fru_info, (0x0A, 0x11): self.fru_part,
            (0x06, 0x37): lambda data: (0, GUID),
            (0x06, 0x3C): lambda data: (0, b""),
            (0x00, 0x01): lambda data: (0, b"\x01\x00\x00\x00"),
            (0x0A, 0x22): lambda data: (0, b"\x01\x00"),
            (0x0A, 0x42): lambda data: (0, b"\x01\x00"),
        }.get((function, code))
        if (function, code) == (0x04, 0x2D):
            # Sensors behind another LUN are other sensors [35.14].
            reading = self.readings.get(data[0]) if lun == 0 else None
            return (ABSENT, b"") if reading is None else (reading[0], reading[1:])
        return answer(data) if answer else (UNKNOWN, b"")

    def capabilities(self, _data):
        if self.quirk("ipmi_1_5_only"):
            return 0, bytes([1, 0x14, 4, 0, 0, 0, 0, 0])
        return 0, bytes([1, 0x80, 4, 3, 0, 0, 0, 0])

    def suites(self, data):
        if self.quirk("tells_no_suites"):
            return UNKNOWN, b""
        part = data[2] & 0x3F
        return 0, b"\x01" + bytes([0xC0, 3, 0x01, 0x41, 0x81])[16 * part:16 * part + 16]

    def device(self, _data):
        return 0, bytes.fromhex("2001021502bfa20200000100 00000000")

    def privilege(self, data):
        code = self.quirk("privilege_code", 0)
        return code, b"" if code else bytes([data[0] or 4])

    def access(self, data):
        _, flags = self.users.get(data[1] & 0x3F, ("", 0x0F))
        return 0, bytes([self.quirk("user_slots", 10), 0x42, 1, flags])

    def name(self, data):
        name, _ = self.users.get(data[0] & 0x3F, (None, 0))
        if name is None:
            return (INVALID, b"") if self.quirk("free_slots_have_no_name") else (0, bytes(16))
        return 0, name.encode("latin-1").ljust(16, b"\0")

    def sdr_info(self, _data):
        return 0, b"\x51" + struct.pack("<HHIIB", len(self.sdr), 0xFFFF, 1, 1, 2)

    def chain(self, records, wanted, loops):
        """The record of an id, and the id after it [31.5, 33.12]."""
        ids = [int.from_bytes(record[:2], "little") for record in records]
        if not records or wanted not in [0, 0xFFFF, *ids]:
            return None
        place = {0: 0, 0xFFFF: len(ids) - 1}.get(wanted)
        place = ids.index(wanted) if place is None else place
        after = ids[place + 1] if place + 1 < len(ids) else ids[0] if loops else 0xFFFF
        return records[place], struct.pack("<H", after)

    def sdr_part(self, data):
        wanted, offset, count = struct.unpack_from("<HBB", data, 2)
        found = self.chain(self.sdr, wanted, self.quirk("sdr_loops"))
        if found is None:
            return ABSENT, b""
        if count > self.quirk("sdr_most", 64):
            return self.quirk("sdr_code", TOO_MUCH), b""
        record, after = found
        if offset >= len(record):
            return OUT_OF_RANGE, b""
        return 0, after + record[offset:offset + count]

    def sel_info(self, _data):
        count = self.quirk("sel_count", len(self.sel))
        return 0, b"\x51" + struct.pack("<HHIIB", count, 1000, 1, 1, 2)

    def sel_entry(self, data):
        found = self.chain(self.sel, *struct.unpack_from("<H", data, 2), self.quirk("sel_loops"))
        return (ABSENT, b"") if found is None else (0, found[1] + found[0])

    def fru_info(self, data):
        image = self.fru.get(data[0])
        if image is None:
            return ABSENT, b""
        return 0, struct.pack("<HB", self.quirk("fru_size", len(image)), 0)

    def fru_part(self, data):
        device, offset, count = struct.unpack("<BHB", data[:4])
        image = self.fru.get(device)
        if image is None:
            return ABSENT, b""
        if count > self.quirk("fru_most", 255):
            return TOO_MUCH, b""
        part = image[offset:offset + count]
        return (0, bytes([len(part)]) + part) if part else (OUT_OF_RANGE, b"")

    # The wire.

    def message(self, request):
        """The message that answers one [13.8]."""
        to, function, _, asker, sequence, code = request[:6]
        completion, data = self.command(function >> 2, code, function & 3, request[6:-1])
        head = bytes([asker, (function >> 2 | 1) << 2 | sequence & 3])
        body = bytes([to, sequence & 0xFC | function & 3, code, completion]) + data
        return head + checksum(head) + body + checksum(body)

    def receive(self, datagram):
        if datagram[:4] != RMCP:
            return None
        if datagram[4] == 0:
            answer = self.message(datagram[14:14 + datagram[13]])
            return RMCP + bytes(9) + bytes([len(answer)]) + answer
        kind, session, _, length = struct.unpack_from("<BIIH", datagram, 5)
        payload = datagram[16:16 + length]
        if kind == 0:
            return RMCP + packet(0, 0, 0, self.message(payload))
        if kind == 0xC0:
            found = self.sessions.get(struct.pack("<I", session))
            return found and found.seal(self.message(found.open(payload)))
        step = {OPEN: self.opened, RAKP1: self.rakp2, RAKP3: self.rakp4}.get(kind)
        answer = None if step is None or self.quirk("ipmi_1_5_only") else step(payload)
        return answer and RMCP + packet(kind + 1, 0, 0, answer)

    def refusal(self, tag, status, console):
        return bytes([tag, status, 0, 0]) + console

    def opened(self, body):
        tag, console, asked = body[0], body[4:8], (body[12], body[20], body[28])
        if self.quirk("open_status"):
            return self.refusal(tag, self.quirk("open_status"), console)
        if asked != (1, 1, 1) and not self.quirk("answers_all_with_suite_3"):
            return self.refusal(tag, 0x11, console)
        own = struct.pack("<I", 0x10000001 + len(self.sessions))
        self.sessions[own] = Session(self, console, own)
        return bytes([tag, 0, self.quirk("open_privilege", body[1] or 4), 0]) + console + own + SUITE_3

    def rakp2(self, body):
        if "rakp1" in self.lost:
            return self.lost.remove("rakp1")
        session = self.sessions[body[4:8]]
        proof = session.rakp2(body)
        status = 0x0D if body[28:28 + body[27]] != self.user else self.quirk("rakp2_status", 0)
        if status:
            console = bytes(4) if self.quirk("rakp2_without_console") else session.console
            return self.refusal(body[0], status, console)
        return self.refusal(body[0], 0, session.console) + proof

    def rakp4(self, body):
        # The console gave up [13.23].
        if body[1]:
            return None
        session = self.sessions[body[4:8]]
        check = session.rakp4(body)
        if "rakp3" in self.lost:
            return self.lost.remove("rakp3")
        status = 0x0F if check is None else 0
        return self.refusal(body[0], status, session.console) + (check or b"")


def main():
    selector, ports = selectors.DefaultSelector(), {}
    for name, spec in json.load(sys.stdin).items():
        place = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        place.bind(("127.0.0.1", 0))
        ports[name] = place.getsockname()[1]
        selector.register(place, selectors.EVENT_READ, Bmc(spec))
    print(json.dumps(ports), flush=True)
    while True:
        for key, _ in selector.select():
            datagram, peer = key.fileobj.recvfrom(2048)
            answer = key.data.receive(datagram)
            for _ in range(2 if key.data.quirk("sends_twice") else 1):
                if answer:
                    key.fileobj.sendto(answer, peer)


main()
