/** Words about executors. */
import type { Executor } from "../api/types";
import { count } from "./format";

/** Whether no other one of its site holds the site's key: without one that does, none can join. */
export function holdsLastKey(gone: Executor, all: Executor[]): boolean {
  return gone.state === "active" && !others(gone, all).length;
}

function others(gone: Executor, all: Executor[]): Executor[] {
  return all.filter((one) => one.site_id === gone.site_id && one.id !== gone.id && one.state === "active");
}

/** "2 of 3 online, 1 waits for confirmation": one that waits takes no work, and counts as none. */
export function onlineNote(executors: Pick<Executor, "state" | "online">[]): string {
  const active = executors.filter((one) => one.state === "active");
  const joining = executors.filter((one) => one.state === "joining").length;
  const waits = joining === 0 ? "" : `, ${joining} ${joining === 1 ? "waits" : "wait"} for confirmation`;
  return `${active.length === 0 ? "none" : `${active.filter((one) => one.online).length} of ${active.length}`} online${waits}`;
}

/** On which machines one that waits for it can be confirmed: theirs hold the key of the site. */
export function confirmers(waiting: Executor, all: Executor[]): string {
  const names = others(waiting, all).map((one) => one.name);
  return new Intl.ListFormat("en-GB", { type: "disjunction" }).format(names);
}

/** What follows when `gone`, one of `all`, is revoked. */
export function revocationNote(gone: Executor, all: Executor[], site: string): string {
  const { name, runs_held } = gone;
  if (holdsLastKey(gone, all)) {
    return `No other executor holds the private key of ${site}, and without one that does none can join: the site and its credentials are lost for good. Let another executor join first. ${name} cannot sign in again. This cannot be undone.`;
  }
  const alone = !others(gone, all).some((one) => one.online);
  return [
    `${name} cannot sign in again; to use its machine again, enrol it anew. This cannot be undone.`,
    runs_held === 0 ? "It holds no run." : `It holds ${count(runs_held, "run")}: once ${runs_held === 1 ? "its lease has" : "their leases have"} ended, another executor of ${site} continues. Without another one they wait.`,
    ...(alone ? [`No other executor of ${site} is online: no job runs there until one is.`] : []),
    `It has held the private key of ${site}. If its machine is not trusted any more, change the passwords of the BMCs and seal them anew.`,
  ].join(" ");
}
