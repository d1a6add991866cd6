"""The peer of the Redfish benchmark: PyPI `redfish`. Reads its arguments as JSON from stdin."""

import json
import sys
import time
import warnings

import redfish

warnings.filterwarnings("ignore")
arguments = json.load(sys.stdin)
client = redfish.redfish_client(
    base_url=arguments["url"], username=arguments["user"], password=arguments["password"]
)
client.login(auth="session")
path = "/redfish/v1/Systems/System.Embedded.1"
assert client.get(path).dict["PowerState"]
before = time.process_time()
for _ in range(arguments["requests"]):
    assert client.get(path).dict["PowerState"]
spent = time.process_time() - before
client.logout()
print(json.dumps({"cpu_ms": spent * 1000 / arguments["requests"]}))
