/** One table from every state to its tone and word. */
export type StatusTone = "ok" | "busy" | "wait" | "warn" | "bad" | "off" | "idle" | "odd" | "go";
export type ExecutorState = "online" | "offline" | "joining" | "revoked";

type Look = { tone: StatusTone; word: string };

export const JOB: Record<string, Look> = {
  planned: { tone: "wait", word: "waits for approval" },
  running: { tone: "busy", word: "running" },
  paused: { tone: "warn", word: "paused" },
  succeeded: { tone: "ok", word: "succeeded" },
  failed: { tone: "bad", word: "failed" },
  cancelled: { tone: "off", word: "cancelled" },
  cancelling: { tone: "warn", word: "being cancelled" },
};

export const RUN: Record<string, Look> = {
  queued: { tone: "idle", word: "queued" },
  leased: { tone: "busy", word: "taken" },
  running: { tone: "busy", word: "running" },
  waiting: { tone: "wait", word: "waiting" },
  settling: { tone: "busy", word: "settling" },
  succeeded: { tone: "ok", word: "succeeded" },
  no_change: { tone: "ok", word: "no change" },
  failed: { tone: "bad", word: "failed" },
  cancelled: { tone: "off", word: "cancelled" },
  unknown: { tone: "odd", word: "unknown" },
};

export const POWER: Record<string, Look> = {
  on: { tone: "ok", word: "on" },
  off: { tone: "off", word: "off" },
  powering_on: { tone: "busy", word: "powering on" },
  powering_off: { tone: "busy", word: "powering off" },
  unknown: { tone: "idle", word: "unknown" },
};

export const HEALTH: Record<string, Look> = {
  ok: { tone: "ok", word: "ok" },
  warning: { tone: "warn", word: "warning" },
  critical: { tone: "bad", word: "critical" },
  unknown: { tone: "idle", word: "unknown" },
};

export const PHASE: Record<string, Look> = {
  running: { tone: "busy", word: "running" },
  done: { tone: "ok", word: "done" },
  skipped: { tone: "off", word: "skipped" },
  failed: { tone: "bad", word: "failed" },
  ended: { tone: "off", word: "ended with the run" },
};

export const EXECUTOR: Record<string, Look> = {
  online: { tone: "ok", word: "online" },
  offline: { tone: "warn", word: "offline" },
  joining: { tone: "wait", word: "waits for confirmation" },
  revoked: { tone: "off", word: "revoked" },
};

/** The order in which run states are counted and listed. */
export const RUN_ORDER = [
  "running",
  "leased",
  "waiting",
  "settling",
  "queued",
  "succeeded",
  "no_change",
  "failed",
  "unknown",
  "cancelled",
] as const;

/** Background of a bar segment. Words and shapes stand beside it. */
export const BAR: Record<StatusTone, string> = {
  ok: "bg-ok",
  busy: "bg-info",
  wait: "bg-warn",
  warn: "bg-warn",
  bad: "bg-bad",
  off: "bg-line-strong",
  idle: "bg-line-strong",
  odd: "bg-odd",
  go: "bg-info",
};
