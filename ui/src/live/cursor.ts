/**
 * What an event makes stale, and when to reconnect. Pure, so that the rules can be tested.
 *
 * The cursor is opaque: it is only handed back. It moves when an event has been taken in, never when a
 * connection opens, so a break between two events loses nothing.
 */
import type { Event } from "../api/types";

export type Key = readonly string[];

/** Query keys whose data may be out of date after `event`. */
export function staleAfter(event: Pick<Event, "kind" | "job_id" | "run_id" | "server_id">): Key[] {
  const [family] = event.kind.split(".");
  if (event.kind === "run.log") return [];
  const keys: Key[] = [];
  if (event.run_id) keys.push(["run", event.run_id]);
  if (event.job_id) keys.push(["job", event.job_id], ["jobs"]);
  if (event.server_id) keys.push(["server", event.server_id]);
  if (event.server_id || family === "server" || family === "bmc") keys.push(["servers"]);
  if (family === "executor") keys.push(["executors"], ["sites"]);
  if (family === "site") keys.push(["sites"]);
  if (family === "credential") keys.push(["credentials"]);
  if (family === "user" || family === "grant") keys.push(["me"], ["people"]);
  return keys;
}

/** Milliseconds before the `attempt`-th try (from 0): 0.5 s doubling to 15 s, ±20 % by `random` in 0–1. */
export function retryDelay(attempt: number, random: number): number {
  const base = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(base * (0.8 + 0.4 * random));
}

/** Remembers the cursor and drops what a resumed stream delivers a second time. */
export class Cursor {
  #last: string | undefined;
  #recent: string[] = [];

  get value(): string | undefined {
    return this.#last;
  }

  /** Starts from a position that is already taken in. */
  seed(cursor: string): void {
    this.#last ??= cursor;
  }

  /** Whether the event at `cursor` is new; if so the position moves there. */
  take(cursor: string): boolean {
    if (cursor === "" || this.#recent.includes(cursor)) return false;
    this.#last = cursor;
    this.#recent.push(cursor);
    if (this.#recent.length > 64) this.#recent.shift();
    return true;
  }
}

/** Groups keys that come in quick succession; the same key is given once per flush. */
export class KeyBatch {
  #keys = new Map<string, Key>();

  add(keys: Key[]): void {
    for (const key of keys) this.#keys.set(key.join("\n"), key);
  }

  drain(): Key[] {
    const out = [...this.#keys.values()];
    this.#keys.clear();
    return out;
  }
}
