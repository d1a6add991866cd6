/** When a person may close a run, and what becomes of it then. All pure. */
import type { Executor, Run, RunState } from "../api/types";

const OVER: Run["state"][] = ["succeeded", "no_change", "failed", "cancelled"];

/** As people read it: a device that says how far it is does not keep anyone waiting. */
export function shownState(run: Pick<Run, "state" | "percent">): RunState {
  return run.state === "waiting" && typeof run.percent === "number" ? "running" : run.state;
}

/** One that has not ended, or that ended `unknown` and may still hold its server. */
export function canClose(run: Pick<Run, "state">): boolean {
  return !OVER.includes(run.state);
}

/** Why a run cannot be closed while its executor works on it; the holder of a lease that has passed is offline. */
export function heldBy(run: Pick<Run, "state" | "executor">, holder: Pick<Executor, "name" | "online"> | undefined): string | undefined {
  if (!run.executor || !holder?.online || run.state === "unknown") return undefined;
  return `Executor ${holder.name} works on this run. Cancel its job: the executor ends it at the next safe point.`;
}

export function closeNote(run: Pick<Run, "state" | "server">): string {
  if (run.state === "unknown") {
    return `The outcome stays unknown. If the run still holds ${run.server}, other jobs may change that server afterwards. Look first at its power, its BMC's job queue and its versions.`;
  }
  return `For a run that no executor can finish. Nothing is done to ${run.server}, and other jobs may change it afterwards. The run ends unknown if it had announced a change: then look at the server's power, its BMC's job queue and its versions before you plan anything else. Otherwise it ends cancelled.`;
}
