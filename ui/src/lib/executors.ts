/** Words about executors. */
import type { Executor } from "../api/types";
import { count } from "./format";

/** What follows when an executor is revoked. */
export function revocationNote({ name, runs_held }: Pick<Executor, "name" | "runs_held">, site: string): string {
  return [
    `${name} cannot sign in again; to use its machine again, enrol it anew. This cannot be undone.`,
    runs_held === 0 ? "It holds no run." : `It holds ${count(runs_held, "run")}: once ${runs_held === 1 ? "its lease has" : "their leases have"} ended, another executor of ${site} continues. Without another one they wait.`,
    `It has held the private key of ${site}. If its machine is not trusted any more, change the passwords of the BMCs and seal them anew.`,
  ].join(" ");
}
