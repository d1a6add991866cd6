/**
 * The typed client. Every call carries `X-Rackhand-Client: browser` and the session's cookies; a 401 is
 * answered by one refresh, single-flight over all tabs, and one repetition of the request.
 */
import createClient from "openapi-fetch";

import { noteServerDate } from "../lib/clock";
import { ApiError, toProblem, Unreachable } from "./problem";
import type { paths } from "./schema";

const HEADERS = { "X-Rackhand-Client": "browser" };
const REFRESHED_AT = "rackhand.refreshedAt";

let onSignedOut: () => void = () => {};

/** Sets what happens when the session cannot be renewed. */
export function whenSignedOut(action: () => void): void {
  onSignedOut = action;
}

let refreshing: Promise<boolean> | undefined;

/** Renews the session unless this or another tab has done so since `since` (ms). True: try again. */
export function refreshSession(since: number): Promise<boolean> {
  refreshing ??= withLock(() => refreshOnce(since)).finally(() => {
    refreshing = undefined;
  });
  return refreshing;
}

async function withLock<T>(work: () => Promise<T>): Promise<T> {
  // Web Locks need a secure context; without them the server's 10 s grace for the former token helps.
  if (!("locks" in navigator)) return work();
  return (await navigator.locks.request("rackhand.refresh", work)) as T;
}

async function refreshOnce(since: number): Promise<boolean> {
  if (lastRefresh() > since) return true;
  const answer = await fetch("/v1/auth/refresh", {
    method: "POST",
    credentials: "same-origin",
    headers: { ...HEADERS, "Content-Type": "application/json" },
    body: "{}",
  });
  if (answer.ok) {
    try {
      localStorage.setItem(REFRESHED_AT, String(Date.now()));
    } catch {
      // Storage is blocked: only this tab knows.
    }
  } else if (answer.status >= 500) {
    throw new ApiError(toProblem(answer.status, await answer.json().catch(() => null)));
  }
  return answer.ok;
}

function lastRefresh(): number {
  try {
    return Number(localStorage.getItem(REFRESHED_AT) ?? 0);
  } catch {
    return 0;
  }
}

/** `fetch` with the session's headers, renewal and classified failures; for the event stream too. */
export async function sessionFetch(request: Request): Promise<Response> {
  for (const [name, value] of Object.entries(HEADERS)) request.headers.set(name, value);
  const again = request.clone();
  const started = Date.now();
  const answer = await send(request);
  if (answer.status !== 401 || new URL(request.url).pathname.startsWith("/v1/auth/log")) return answer;
  if (await refreshSession(started)) {
    const second = await send(again);
    if (second.status !== 401) return second;
  }
  onSignedOut();
  return answer;
}

/** A control plane that hangs is as good as none: the pages say so instead of reading for ever. */
const ANSWER_MS = 20_000;

function timedFetch(request: Request): Promise<Response> {
  return sessionFetch(new Request(request, { signal: AbortSignal.any([request.signal, AbortSignal.timeout(ANSWER_MS)]) }));
}

async function send(request: Request): Promise<Response> {
  try {
    const answer = await fetch(request);
    noteServerDate(answer.headers.get("date"));
    return answer;
  } catch (cause) {
    const timedOut = request.signal.reason instanceof DOMException && request.signal.reason.name === "TimeoutError";
    if (request.signal.aborted && !timedOut) throw cause;
    throw new Unreachable(cause);
  }
}

export const api = createClient<paths>({
  baseUrl: typeof location === "undefined" ? "http://localhost" : location.origin,
  credentials: "same-origin",
  fetch: timedFetch,
});

/** The body of a successful answer; throws [`ApiError`] otherwise. */
export async function body<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw new ApiError(toProblem(response.status, error));
  return data as T;
}
