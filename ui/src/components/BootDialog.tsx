/** Plans a boot override. */
import { useState } from "react";

import type { BootMode, BootTarget } from "../api/types";
import { CheckField, SelectField } from "./fields";
import { JobDialog, type JobTargets } from "./JobDialog";

const TARGETS: Record<BootTarget, string> = {
  pxe: "Network (PXE)",
  disk: "Disk",
  cd: "CD or DVD, also a virtual one",
  bios_setup: "Firmware setup",
  none: "Nothing: clear what is set",
};
const OPTIONS = Object.entries(TARGETS).map(([value, text]) => [value as BootTarget, text] as const);
const MODES = [
  ["", "As the firmware is set up"],
  ["uefi", "UEFI"],
  ["legacy", "Legacy BIOS"],
] as const satisfies readonly (readonly [BootMode | "", string])[];

export function BootDialog(targets: JobTargets) {
  const [target, setTarget] = useState<BootTarget>("pxe");
  const [continuous, setContinuous] = useState(false);
  const [mode, setMode] = useState<BootMode | "">("");
  return (
    <JobDialog
      {...targets}
      label="Boot from…"
      title="Boot override of"
      note="No host is restarted."
      spec={() => ({ kind: "boot_override", params: { target, times: continuous ? "continuous" : "once", mode: mode === "" ? null : mode } })}
    >
      <SelectField label="Boot from" value={target} set={setTarget} options={OPTIONS} />
      {target !== "none" && (
        <>
          <CheckField label="At every boot until it is cleared, not only at the next one" checked={continuous} set={setContinuous} />
          <SelectField label="Boot mode" value={mode} set={setMode} options={MODES} />
        </>
      )}
    </JobDialog>
  );
}
