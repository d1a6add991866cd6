/** What a job and its plan say, in words and sums. All pure. */
import type { BootOverride, FirmwarePackage, Job, JobSpec, Plan, PlanStep, PlanTarget, Reboot } from "../api/types";
import { count, jobKind, words } from "./format";

/** "Firmware: BIOS 2.19.1", "Firmware: 4 packages (BIOS 2.19.1, …)" where the plan says how many it uses, "Power: force off", "Inventory". */
export function jobTitle(spec: JobSpec & { plan?: Plan }): string {
  if (spec.kind === "power") return `Power: ${words(spec.params.action)}`;
  if (spec.kind === "boot_override") return `Boot override: ${bootWords(spec.params)}`;
  if (spec.kind !== "firmware_update") return jobKind(spec.kind);
  const given = Object.values(spec.params.packages);
  const used = usedPackages(spec.params.packages, spec.plan).map(([, item]) => item);
  const [first] = used.length > 0 ? used : given;
  if (first === undefined) return "Firmware update";
  if (used.length > 1) return `Firmware: ${used.length} packages (${first.name}, …)`;
  return used.length === 1 || given.length === 1 ? `Firmware: ${first.name}` : `Firmware: ${first.name}, …`;
}

/** The packages that servers of the plan get or have; none where its steps are not known, as in a list of jobs. */
export function usedPackages(packages: Record<string, FirmwarePackage>, plan: Plan | undefined): [string, FirmwarePackage][] {
  const steps = plan?.targets.flatMap((target) => target.steps) ?? [];
  return Object.entries(packages).filter(([, { sha256, version }]) =>
    steps.some((step) => (step.step === "firmware" && step.sha256 === sha256) || (step.step === "already_installed" && step.version === version)),
  );
}

/** As people read it: one that was cancelled may have runs that are still followed to their end. */
export function shownJobState({ state, cancel_requested }: Pick<Job, "state" | "cancel_requested">): Job["state"] | "cancelling" {
  return cancel_requested && (state === "running" || state === "paused") ? "cancelling" : state;
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

/** Whether a step changes something. A kind of step that is not listed here does not compile. */
export function changes(step: PlanStep): boolean {
  switch (step.step) {
    case "firmware":
    case "power":
    case "boot_override":
      return true;
    case "read_inventory":
    case "already_installed":
      return false;
    default:
      return unlisted(step, true);
  }
}

/** "on → off": the power state when the plan was made, and the one in which the action leaves the host. */
export function powerWords(action: string, from: string | null | undefined): string {
  const to = action === "force_off" || action === "graceful_shutdown" ? "off" : "on";
  return `${from ? words(from) : "not known"} → ${to}`;
}

const RESTARTS: string[] = ["graceful_restart", "force_restart", "power_cycle"];

export function rebootOf(step: PlanStep): Reboot {
  switch (step.step) {
    case "firmware":
      return step.reboot;
    case "power":
      return RESTARTS.includes(step.action) ? "host" : "none";
    case "boot_override":
    case "read_inventory":
    case "already_installed":
      return "none";
    default:
      return unlisted(step, "host");
  }
}

/** A newer server may send what this page does not know: then the careful answer counts. */
function unlisted<T>(_: never, careful: T): T {
  return careful;
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
  const servers = count(sums.change, "server");
  switch (job.kind) {
    case "power":
      return `Approve: ${words(job.params.action)} ${servers}`;
    case "boot_override":
      return `Approve: set what ${servers} ${sums.change === 1 ? "boots" : "boot"} from`;
    case "inventory":
      return `Approve: read ${servers}`;
    case "firmware_update": {
      const parts = [`update ${servers}`];
      if (sums.hostReboots > 0) parts.push(`restart ${count(sums.hostReboots, "host")}`);
      else if (sums.bmcReboots > 0) parts.push(`restart ${count(sums.bmcReboots, "BMC")}`);
      return `Approve: ${parts.join(", ")}`;
    }
    default:
      return unlisted(job, `Approve: change ${servers}`);
  }
}

/** Why a plan that changes nothing cannot be approved, or undefined where it changes something. */
export function idleNote(plan: Plan): string | undefined {
  const sums = planSums(plan);
  if (sums.change > 0) return undefined;
  if (sums.nothing === 0) return "Every server is blocked; there is nothing to approve.";
  return sums.blocked === 0 ? "Nothing is to be changed: every server is as requested already." : "Nothing is to be changed: every server that is not blocked is as requested already.";
}

/** Why a job has no runs. */
export function noRunsNote(job: Pick<Job, "state" | "plan">): string {
  if (job.state === "planned") return "They come with the approval.";
  return planSums(job.plan).blocked === job.plan.targets.length ? "The plan blocked every server." : "The job ended before its plan was approved.";
}

const UNDER_WAY = ["running", "leased", "waiting", "settling"];

/** How many runs are under way, wait to start, or did not succeed. */
export function runSums({ runs }: Pick<Job, "runs">): { working: number; queued: number; again: number } {
  const sum = (states: string[]): number => states.reduce((all, state) => all + (runs[state] ?? 0), 0);
  return { working: sum(UNDER_WAY), queued: sum(["queued"]), again: sum(["failed", "cancelled", "unknown"]) };
}

/** What pausing does. */
export function pauseNote(job: Pick<Job, "runs">): string {
  const { working, queued } = runSums(job);
  const parts = ["No new run starts."];
  if (working > 0) parts.push(`${count(working, "run")} under way ${working === 1 ? "continues" : "continue"} to a safe end.`);
  if (queued > 0) parts.push(`${count(queued, "run")} ${queued === 1 ? "waits" : "wait"}.`);
  return parts.join(" ");
}

/** Why a job is paused, and what waits. */
export function pausedNote({ state_reason, ...job }: Pick<Job, "runs" | "state_reason">): string {
  const { queued } = runSums(job);
  const why = /^Paused /.test(state_reason) ? state_reason : `Paused: ${state_reason}`;
  const waits = queued > 0 ? `${count(queued, "queued run")} ${queued === 1 ? "waits" : "wait"} until someone resumes or cancels the job.` : "No run is queued; resume or cancel the job.";
  return `${why.replace(/\.$/, "")}. ${waits}`;
}

/** What resuming does: the limits of the approved plan hold, and failures are counted anew. */
export function resumeNote(job: Pick<Job, "runs" | "policy">): string {
  const { queued } = runSums(job);
  const { max_parallel, pause_after_failures } = job.policy;
  const brake =
    pause_after_failures > 0
      ? `Failures are counted from now: the job pauses again after ${count(pause_after_failures, "more failure", "more failures")}.`
      : "The job never pauses on failures.";
  return `${count(queued, "run")} may start again, at most ${max_parallel} at once. ${brake}`;
}

/** What cancelling does; runs that there are none of are not mentioned. */
export function cancelNote(job: Pick<Job, "runs" | "state">): string {
  if (job.state === "planned") return "Nothing has started, so nothing is undone. The plan cannot be approved afterwards.";
  const { working, queued } = runSums(job);
  const parts: string[] = [];
  if (queued > 0) parts.push(`${count(queued, "run")} will not start.`);
  if (working > 0) {
    parts.push(
      `${count(working, "run")} under way ${working === 1 ? "ends" : "end"} at the next safe point: while a device is flashing nothing is interrupted, and what was changed on the way is restored.`,
    );
  }
  return parts.join(" ") || "No run is waiting or under way; the job ends.";
}

/** What a job gets unless someone says otherwise. */
export const PACE = { max_parallel: 8, pause_after_failures: 3, start_after: null };
export const LIMITS = { parallel: { min: 1, max: 1000 }, pauseAfter: { min: 0, max: 1000 } };
export const REASON = { min: 3, max: 500, short: "Give a reason of at least 3 characters." };

/** Whether a text is a whole number within limits. */
export function inRange(text: string, { min, max }: { min: number; max: number }): boolean {
  return /^\d{1,4}$/.test(text) && parseInt(text, 10) >= min && parseInt(text, 10) <= max;
}

export function paceWrong(parallel: string, pauseAfter: string): boolean {
  return !inRange(parallel, LIMITS.parallel) || !inRange(pauseAfter, LIMITS.pauseAfter);
}

/** Blocked targets first, then those with warnings, then changes, then nothing to do; else the plan's order. */
export function planOrder(targets: PlanTarget[]): PlanTarget[] {
  const rank = (target: PlanTarget): number =>
    target.blockers.length > 0 ? 0 : target.warnings.length > 0 ? 1 : target.steps.some(changes) ? 2 : 3;
  return targets.map((target, index) => ({ target, index })).sort((a, b) => rank(a.target) - rank(b.target) || a.index - b.index).map(({ target }) => target);
}
