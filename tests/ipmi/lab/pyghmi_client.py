# Reads one BMC with pyghmi: port as argument, password on stdin, JSON on stdout.
import json
import sys

from pyghmi.ipmi import command

bmc = command.Command(
    bmc="127.0.0.1", port=int(sys.argv[1]), userid="root", password=sys.stdin.read(), privlevel=4
)
readings = list(bmc.get_sensor_data())
inlet = [reading.value for reading in readings if reading.name == "Inlet Temp"]
bmc.set_bootdev("network")
print(
    json.dumps(
        {
            "power": bmc.get_power()["powerstate"],
            "sensors": len(readings),
            "inlet": inlet[0],
            "inventory": repr(list(bmc.get_inventory())),
            "events": len(list(bmc.get_event_log())),
            "boot": bmc.get_bootdev()["bootdev"],
        }
    )
)
bmc.ipmi_session.logout()
