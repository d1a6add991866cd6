/** What a run has changed for a while; when a person may close it, and what becomes of it then. All pure. */
import type { Effect, Event, Executor, Job, PhaseRecord, Run, RunDetail, RunState } from "../api/types";
import { words } from "./format";

const OVER: Run["state"][] = ["succeeded", "no_change", "failed", "cancelled"];

/** A phase as it is shown. */
export type ShownPhase = Omit<PhaseRecord, "state"> & { state: PhaseRecord["state"] | "ended" };

/** As people read it: a device that says how far it is does not keep anyone waiting. */
export function shownState(run: Pick<Run, "state" | "percent">): RunState {
  return run.state === "waiting" && typeof run.percent === "number" ? "running" : run.state;
}

/** The phases of a run. Of one that has ended, none goes on: what had not been reported as done ended with the run. */
export function shownPhases(run: Pick<RunDetail, "state" | "finished_at" | "since" | "phases">): ShownPhase[] {
  if (run.state !== "unknown" && !OVER.includes(run.state)) return run.phases;
  return run.phases.map((phase) => (phase.state === "running" ? { ...phase, state: "ended", finished_at: phase.finished_at ?? run.finished_at ?? run.since } : phase));
}

/** Who has closed the run, and when; undefined where nobody has, as far as its events are here. */
export function closing(events: Pick<Event, "kind" | "actor" | "at">[]): Pick<Event, "actor" | "at"> | undefined {
  return events.findLast((event) => event.kind === "run.closed");
}

/**
 * One that has not ended, or that ended `unknown` and holds its server until a person closes it, or cancels its job.
 * The run itself does not say whether one has: its events do, and `read` is whether all of them are here.
 */
export function canClose(run: Pick<Run, "state" | "cancel_requested">, job: Pick<Job, "cancel_requested">, closed: boolean, read: boolean): boolean {
  if (run.state !== "unknown") return !OVER.includes(run.state);
  // Cancelling the job gives back what ended before; what had not ended then was requested to end, and holds its server.
  return read && !closed && (run.cancel_requested || !job.cancel_requested);
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

/**
 * How a temporary change stands, in the words of the run's log: "update job JID_1: gone", "host power: on again".
 */
export function effectText(effect: Pick<Effect, "object" | "property" | "prior" | "wanted" | "state">): string {
  const { object, property, prior, wanted, state } = effect;
  if (object === "bmc_job") {
    const { job, guessed } = (wanted ?? {}) as { job?: string | null; guessed?: boolean };
    // One that the BMC has not named itself may be someone else's: it is not deleted.
    return `update job ${job ? `${job}${guessed ? " (assumed)" : ""}` : `for ${property}`}: ${guessed && state === "settled" ? "left to the BMC" : (JOB_IN_BMC[state] ?? words(state))}`;
  }
  if (object !== "host_power") return `${words(object)} ${property}: ${OTHER_CHANGE[state] ?? words(state)}`;
  const restart = wanted === "restarted";
  switch (state) {
    case "intended":
      return `host power: about to be ${restart ? "restarted" : `turned ${plain(wanted)}`}`;
    case "applied":
      return restart ? "host power: restarted" : `host power: ${plain(wanted)} for the update`;
    case "settling":
      return `host power: being turned ${plain(prior)} again`;
    case "settled":
      return `host power: ${plain(prior)} again`;
    default:
      return `host power: ${OTHER_CHANGE[state] ?? words(state)}`;
  }
}

const JOB_IN_BMC: Record<string, string> = {
  intended: "about to be queued",
  applied: "in the queue of the BMC",
  not_applied: "not in the queue of the BMC",
  settling: "being taken out of the queue",
  settled: "gone",
  conflict: "left as it is; look at the queue of the BMC",
};

const OTHER_CHANGE: Record<string, string> = {
  intended: "about to be changed",
  applied: "changed",
  not_applied: "not changed",
  settling: "being restored",
  settled: "restored",
  conflict: "not restored; look at the server",
};

function plain(value: unknown): string {
  return typeof value === "string" ? words(value) : JSON.stringify(value);
}
