/**
 * What stands in the URL. Filters are typed search parameters: reading any URL gives a valid filter, and
 * writing it again gives the same URL.
 */
import type { Health, JobState, PowerState } from "../api/types";

export const POWER: PowerState[] = ["on", "off", "powering_on", "powering_off", "unknown"];
export const HEALTH: Health[] = ["ok", "warning", "critical", "unknown"];
export const JOB_STATES: JobState[] = ["planned", "running", "paused", "succeeded", "failed", "cancelled"];

export interface FleetFilter {
  site?: string;
  q?: string;
  power?: PowerState;
  health?: Health;
  generation?: string;
  model?: string;
  tag?: string;
}

export interface JobFilter {
  site?: string;
  state?: JobState;
}

export interface JobView {
  view?: "plan" | "runs";
  run?: string;
  /** Cursor of a log line. */
  line?: string;
  /** Only runs in this state. */
  only?: string;
}

export interface EventView {
  site?: string;
  server?: string;
  /** Also the lines of the runs' logs. */
  lines?: "shown";
}

type Raw = Record<string, unknown>;

export function fleetFilter(raw: Raw): FleetFilter {
  return clean({
    site: text(raw.site),
    q: text(raw.q),
    power: oneOf(raw.power, POWER),
    health: oneOf(raw.health, HEALTH),
    generation: text(raw.generation),
    model: text(raw.model),
    tag: text(raw.tag),
  });
}

export function jobFilter(raw: Raw): JobFilter {
  return clean({ site: text(raw.site), state: oneOf(raw.state, JOB_STATES) });
}

export function jobView(raw: Raw): JobView {
  return clean({ view: oneOf(raw.view, ["plan", "runs"] as const), run: text(raw.run), line: text(raw.line), only: text(raw.only) });
}

export function eventView(raw: Raw): EventView {
  return clean({ site: text(raw.site), server: text(raw.server), lines: oneOf(raw.lines, ["shown"] as const) });
}

export function siteOnly(raw: Raw): { site?: string } {
  return clean({ site: text(raw.site) });
}

export interface SignInView {
  /** Where to go after sign-in: only a path of this very origin. */
  to?: string;
  /** A password was chosen just now. */
  password?: "set";
}

export function signInTarget(raw: Raw): SignInView {
  const to = text(raw.to);
  const own = to?.startsWith("/") && !to.startsWith("//") && !to.startsWith("/\\") && !to.startsWith("/sign-in");
  return clean({ to: own ? to : undefined, password: oneOf(raw.password, ["set"] as const) });
}

/** `?a=1&b=x` → `{a: "1", b: "x"}`; all values stay text, the last of a repeated name wins. */
export function parseSearch(search: string): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(search));
}

/** The reverse; absent and empty values are left out. */
export function stringifySearch(values: Raw): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== "") params.set(name, String(value));
  }
  const out = params.toString();
  return out === "" ? "" : `?${out}`;
}

function text(value: unknown): string | undefined {
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  const trimmed = String(value).trim();
  return trimmed === "" ? undefined : trimmed.slice(0, 2000);
}

function oneOf<const T extends string>(value: unknown, allowed: readonly T[]): T | undefined {
  return allowed.find((item) => item === value);
}

function clean<T extends object>(values: T): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}
