"""A BMC made of pyghmi's server classes, for cipher suites 17 and 3, with faults.

pyghmi's server speaks suite 3 only. The session class below answers with the algorithms that the client proposed, and
computes what pyghmi computes with SHA-1 with the hash of the suite (IPMI 2.0, sections 13.17 to 13.24, 13.28, 13.31).

usage: pyghmi_bmc.py PORT MODE, with a JSON object on stdin: {"user": ..., "password": ...}
Each step of a handshake is one JSON line on stdout.
"""

import collections
import hashlib
import hmac
import json
import os
import struct
import sys
import time

from pyghmi.ipmi import bmc
from pyghmi.ipmi.private import constants, serversession

Suite = collections.namedtuple("Suite", "authentication integrity hash code_length")
SUITES = {
    3: Suite(1, 1, hashlib.sha1, 12),
    17: Suite(3, 4, hashlib.sha256, 16),
}
NO_MATCHING_SUITE = 0x11
NODE_BUSY = 0xc0
CLOSE_SESSION = 0x3c
# The network function and command of Dell's fan control.
REFUSED = 0x30, 0x30
HANDSHAKE = constants.payload_types


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def proposed(request):
    """The suite whose algorithms an open-session request asks for, by number."""
    algorithms = request[12], request[20]
    for number, suite in SUITES.items():
        if algorithms == (suite.authentication, suite.integrity):
            return number
    return None


class Session(serversession.ServerSession):
    def create_open_session_response(self, request):
        request = bytearray(request)
        number = proposed(request)
        mode = self.bmc.mode
        tell("open", proposed=number)
        self.clientsessionid = request[4:8]
        self.managedsessionid = os.urandom(4)
        self.privlevel = 4
        head = bytearray([request[0], 0, self.privlevel, 0])
        if number is None or (mode == "refuse17" and number == 17):
            head[1] = NO_MATCHING_SUITE
            return head + self.clientsessionid
        if mode == "downgrade":
            number = 3
        self.suite = SUITES[number]
        self.currhashlib = self.suite.hash
        self.currhashlen = self.suite.code_length
        algorithms = bytearray()
        chosen = self.suite.authentication, self.suite.integrity, 1
        for kind, algorithm in enumerate(chosen):
            algorithms += bytearray([kind, 0, 0, 8, algorithm, 0, 0, 0])
        return head + self.clientsessionid + self.managedsessionid + algorithms

    def digest(self, key, *parts):
        return hmac.new(bytes(key), b"".join(bytes(part) for part in parts), self.suite.hash).digest()

    def user(self):
        return bytearray([self.rolem, len(self.username)]) + self.username

    def _got_rakp1(self, data):
        data = bytearray(data)
        self.Rm = data[8:24]
        self.rolem = data[24]
        self.maxpriv = self.rolem & 0b111
        self.username = bytes(data[28:28 + data[27]])
        tell("rakp1", user=self.username.decode("latin-1"))
        password = self.authdata.get(self.username.decode("latin-1"))
        if password is None:
            return
        self.kuid = password.encode()
        self.kg = self.bmc.kg or self.kuid
        self.Rc = bytearray(os.urandom(16))
        self.uuiddata = bytearray(self.uuid.bytes)
        code = bytearray(self.digest(
            self.kuid, self.clientsessionid, self.managedsessionid, self.Rm, self.Rc,
            self.uuiddata, self.user()))
        if self.bmc.mode == "wrong-rakp":
            code[0] ^= 1
        answer = bytearray([data[0], 0, 0, 0]) + self.clientsessionid + self.Rc + self.uuiddata
        self.send_payload(answer + code, HANDSHAKE["rakp2"], retry=False)

    def _got_rakp3(self, data):
        data = bytearray(data)
        self.sik = self.digest(self.kg, self.Rm, self.Rc, self.user())
        length = self.suite.hash().digest_size
        # The constants are 20 bytes long whatever the hash (section 13.32).
        self.k1, self.k2 = (self.digest(self.sik, bytes([number]) * 20) for number in (1, 2))
        self.aeskey = self.k2[:16]
        expected = self.digest(self.kuid, self.Rc, self.clientsessionid, self.user())
        right = data[1] == 0 and hmac.compare_digest(expected, bytes(data[8:8 + length]))
        tell("rakp3", status=data[1], right=right)
        if not right:
            return
        self.localsid = struct.unpack("<I", self.managedsessionid)[0]
        self.ipmicallback = self.handle_client_request
        self._send_rakp4(data[0], 0)

    def _send_rakp4(self, tagvalue, statuscode):
        check = self.digest(self.sik, self.Rm, self.managedsessionid, self.uuiddata)
        answer = bytearray([tagvalue, statuscode, 0, 0]) + self.clientsessionid
        answer += check[:self.suite.code_length]
        self.send_payload(answer, HANDSHAKE["rakp4"], retry=False)
        self.confalgo = "aes"
        # pyghmi only asks whether there is one.
        self.integrityalgo = "hmac"
        self.sequencenumber = 1
        self.sessionid = struct.unpack("<I", bytes(self.clientsessionid))[0]
        tell("session")


class Bmc(bmc.Bmc):
    def __init__(self, mode, authdata, port):
        self.mode = mode
        self.on = True
        self.boot = "default"
        # How many commands are refused as busy.
        self.busy = 3
        super().__init__(authdata, port=port, address="127.0.0.1")
        self.iohandler = self.typed
        self.echoes = []

    def sessionless_data(self, data, sockaddr):
        octets = bytearray(data)
        if len(octets) > 47 and octets[4] == 6 and octets[5] == 0x10:
            Session(self.authdata, self.kg, sockaddr, self.serversocket, octets[16:], self.uuid, bmc=self)
            return
        super().sessionless_data(data, sockaddr)

    def handle_raw_request(self, request, session):
        netfn, command = request["netfn"], request["command"]
        tell("command", netfn=netfn, command=command, at=time.monotonic())
        if self.mode == "busy" and self.busy > 0 and command != CLOSE_SESSION:
            self.busy -= 1
            session.send_ipmi_response(code=NODE_BUSY)
        elif (netfn, command) == REFUSED and request["data"]:
            # A completion code on demand.
            session.send_ipmi_response(code=request["data"][0])
        else:
            super().handle_raw_request(request, session)

    def get_power_state(self):
        return "on" if self.on else "off"

    def power_on(self):
        self.on = True

    def power_off(self):
        self.on = False

    def get_boot_device(self):
        return self.boot

    def set_boot_device(self, bootdevice):
        self.boot = bootdevice

    def is_active(self):
        return True

    def typed(self, data):
        if isinstance(data, (bytes, bytearray)):
            self.echoes.append(bytes(data))

    def listen(self):
        # Sending waits for its answer: not where what was typed is still being delivered.
        while True:
            serversession.ServerSession.wait_for_rsp(0.05)
            while self.echoes:
                self.sol.send_data(self.echoes.pop(0))


def main():
    port, mode = int(sys.argv[1]), sys.argv[2]
    account = json.load(sys.stdin)
    lab = Bmc(mode, {account["user"]: account["password"]}, port)
    tell("ready")
    lab.listen()


main()
