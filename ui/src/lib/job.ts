/** What a job and its plan say, in words and sums. All pure. */
import type { BootOverride, Job, JobSpec, Plan, PlanStep, PlanTarget, Reboot } from "../api/types";
import { count, jobKind, words } from "./format";

/** "BIOS 2.19.1", "Power: force off", "Inventory". */
export function jobTitle(spec: JobSpec): string {
  if (spec.kind === "power") return `Power: ${words(spec.params.action)}`;
  if (spec.kind === "boot_override") return `Boot override: ${bootWords(spec.params)}`;
  if (spec.kind !== "firmware_update") return jobKind(spec.kind);
  const names = [...new Set(Object.values(spec.params.packages).map((item) => item.name))];
  const [first, second] = names;
  if (first === undefined) return "Firmware update";
  return second === undefined ? `Firmware: ${first}` : `Firmware: ${first} and ${names.length - 1} more`;
}

/** "pxe, once", "cd, continuous, uefi", "cleared". */
export function bootWords({ target, times, mode }: BootOverride): string {
  if (target === "none") return "cleared";
  return [words(target), times ?? "once", mode].filter(Boolean).join(", ");
}

export interface PlanSums {
  /** Targets with at least one step that changes something. */
  change: number;
  /** Targets on which there is nothing to do. */
  nothing: number;
  blocked: number;
  warnings: number;
  hostReboots: number;
  bmcReboots: number;
}

export function planSums(plan: Plan): PlanSums {
  const sums: PlanSums = { change: 0, nothing: 0, blocked: 0, warnings: 0, hostReboots: 0, bmcReboots: 0 };
  for (const target of plan.targets) {
    sums.warnings += target.warnings.length;
    if (target.blockers.length > 0) sums.blocked += 1;
    else if (target.steps.some(changes)) sums.change += 1;
    else sums.nothing += 1;
    if (target.blockers.length > 0) continue;
    const reboots = target.steps.map(rebootOf);
    if (reboots.some((reboot) => reboot === "host" || reboot === "host_at_once")) sums.hostReboots += 1;
    if (reboots.includes("bmc")) sums.bmcReboots += 1;
  }
  return sums;
}

export function changes(step: PlanStep): boolean {
  return step.step === "firmware" || step.step === "power" || step.step === "boot_override";
}

export function rebootOf(step: PlanStep): Reboot {
  return step.step === "firmware" ? step.reboot : "none";
}

export const REBOOT: Record<Reboot, string> = {
  none: "no reboot",
  bmc: "the BMC restarts, the host keeps running",
  host: "the host is restarted",
  host_at_once: "the BMC restarts the host as soon as it has the package",
};

/** What the approve button does: "Approve: change 9 servers, restart 9 hosts". */
export function approveLabel(job: Job): string {
  const sums = planSums(job.plan);
  if (job.kind === "power") return `Approve: ${words(job.params.action)} ${count(sums.change, "server")}`;
  if (job.kind === "boot_override") return `Approve: set what ${count(sums.change, "server")} ${sums.change === 1 ? "boots" : "boot"} from`;
  if (sums.change === 0) return "Approve: nothing to change";
  const parts = [`update ${count(sums.change, "server")}`];
  if (sums.hostReboots > 0) parts.push(`restart ${count(sums.hostReboots, "host")}`);
  else if (sums.bmcReboots > 0) parts.push(`restart ${count(sums.bmcReboots, "BMC")}`);
  return `Approve: ${parts.join(", ")}`;
}

/** Blocked targets first, then those with warnings, then changes, then nothing to do; else the plan's order. */
export function planOrder(targets: PlanTarget[]): PlanTarget[] {
  const rank = (target: PlanTarget): number =>
    target.blockers.length > 0 ? 0 : target.warnings.length > 0 ? 1 : target.steps.some(changes) ? 2 : 3;
  return targets.map((target, index) => ({ target, index })).sort((a, b) => rank(a.target) - rank(b.target) || a.index - b.index).map(({ target }) => target);
}
