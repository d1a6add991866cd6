/** Plans a change of power. */
import { useState } from "react";

import type { PowerAction } from "../api/types";
import { SelectField } from "./fields";
import { JobDialog, type JobTargets } from "./JobDialog";

const ACTIONS: Record<PowerAction, { name: string; note: string }> = {
  on: { name: "Power on", note: "Hosts that are on stay as they are." },
  graceful_shutdown: { name: "Shut down", note: "The OS is requested to shut down. Nothing is forced." },
  graceful_restart: { name: "Restart", note: "The OS is requested to restart. Nothing is forced." },
  force_off: { name: "Force off", note: "The OS is not shut down first: unsaved data is lost." },
  force_restart: { name: "Force restart", note: "The OS is not shut down first: unsaved data is lost." },
  power_cycle: { name: "Power cycle: off, then on", note: "The OS is not shut down first: unsaved data is lost." },
};
const OPTIONS = Object.entries(ACTIONS).map(([value, { name }]) => [value as PowerAction, name] as const);

export function PowerDialog(targets: JobTargets) {
  const [action, setAction] = useState<PowerAction>("on");
  return (
    <JobDialog {...targets} label="Power…" title="Power of" note={ACTIONS[action].note} spec={() => ({ kind: "power", params: { action } })}>
      <SelectField label="Action" value={action} set={setAction} options={OPTIONS} />
    </JobDialog>
  );
}
