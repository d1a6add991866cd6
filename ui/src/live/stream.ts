/**
 * The one event stream of this tab. It resumes by `Last-Event-ID`, reconnects with backoff, and lets go
 * of its connection while the tab is hidden (HTTP/1.1 allows a browser six per host).
 *
 * How it fails: a connection that stays silent (no keep-alive for 35 s, no answer for 10 s) is cut and counted
 * as lost; the state says since when nothing was heard, and the banner shows it.
 */
import type { QueryClient } from "@tanstack/react-query";

import { api, body, sessionFetch } from "../api/client";
import { ApiError, toProblem, Unreachable } from "../api/problem";
import type { Event } from "../api/types";
import { Cursor, KeyBatch, retryDelay, staleAfter } from "./cursor";
import { SseParser } from "./sse";

const SILENCE_MS = 35_000;
/** The first byte of an answer must come by then. */
const CONNECT_MS = 10_000;
const HIDDEN_MS = 30_000;
const FLUSH_MS = 300;

export interface LiveState {
  kind: "connecting" | "live" | "lost" | "asleep";
  /** Browser time at which this state began. */
  since: number;
  error?: unknown;
  /** With `lost`: browser time of the next try. */
  retryAt?: number;
}

export class LiveStream {
  #queries: QueryClient;
  #cursor = new Cursor();
  #batch = new KeyBatch();
  #flush: ReturnType<typeof setTimeout> | undefined;
  #state: LiveState = { kind: "connecting", since: Date.now() };
  #listeners = new Set<() => void>();
  #eventListeners = new Set<(event: Event) => void>();
  #connection: AbortController | undefined;
  /** Browser time of the last sign of life. */
  #heard = Date.now();
  #wake: (() => void) | undefined;
  #hideTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(queries: QueryClient) {
    this.#queries = queries;
  }

  get state(): LiveState {
    return this.#state;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Calls `listener` with every event as it comes. */
  onEvent(listener: (event: Event) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  start(): () => void {
    const stop = new AbortController();
    document.addEventListener("visibilitychange", this.#onVisibility, { signal: stop.signal });
    window.addEventListener("online", () => this.retryNow(), { signal: stop.signal });
    window.addEventListener("offline", () => this.#connection?.abort(), { signal: stop.signal });
    void this.#loop(stop.signal);
    return () => {
      stop.abort();
      this.#connection?.abort();
      clearTimeout(this.#flush);
      clearTimeout(this.#hideTimer);
      this.#wake?.();
    };
  }

  retryNow(): void {
    this.#wake?.();
  }

  #onVisibility = (): void => {
    clearTimeout(this.#hideTimer);
    if (document.visibilityState === "hidden") {
      this.#hideTimer = setTimeout(() => {
        this.#set({ kind: "asleep", since: Date.now() });
        this.#connection?.abort();
      }, HIDDEN_MS);
    } else if (this.#state.kind === "asleep") {
      this.#set({ kind: "connecting", since: Date.now() });
      this.retryNow();
    }
  };

  async #loop(stop: AbortSignal): Promise<void> {
    let attempt = 0;
    while (!stop.aborted) {
      if (this.#state.kind === "asleep") {
        await this.#pause(undefined);
        continue;
      }
      let failure: unknown;
      try {
        const worked = await this.#connect(stop);
        if (worked) attempt = 0;
      } catch (error) {
        failure = error;
      }
      if (stop.aborted) return;
      if (this.#isAsleep()) continue;
      // The server ends a stream when the token ends; that alone is no loss.
      if (failure === undefined && attempt === 0) {
        attempt += 1;
        continue;
      }
      const delay = retryDelay(attempt, Math.random());
      attempt += 1;
      this.#set({
        kind: "lost",
        since: this.#state.kind === "lost" ? this.#state.since : failure instanceof Unreachable ? Math.min(this.#heard, Date.now()) : Date.now(),
        error: failure,
        retryAt: Date.now() + delay,
      });
      await this.#pause(delay);
    }
  }

  #isAsleep(): boolean {
    return this.#state.kind === "asleep";
  }

  /** Reads one connection to its end. True when it was established. */
  async #connect(stop: AbortSignal): Promise<boolean> {
    const connection = new AbortController();
    this.#connection = connection;
    const abort = (): void => connection.abort();
    stop.addEventListener("abort", abort, { once: true });
    let silence: ReturnType<typeof setTimeout> | undefined;
    let silent = false;
    const listen = (ms: number): void => {
      clearTimeout(silence);
      silence = setTimeout(() => {
        silent = true;
        connection.abort();
      }, ms);
    };
    try {
      if (this.#cursor.value === undefined) await this.#seed();
      const url = new URL("/v1/events/stream", location.origin);
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (this.#cursor.value !== undefined) headers["Last-Event-ID"] = this.#cursor.value;
      listen(CONNECT_MS);
      const answer = await sessionFetch(
        new Request(url, { headers, credentials: "same-origin", cache: "no-store", signal: connection.signal }),
      );
      if (!answer.ok || answer.body === null) {
        throw new ApiError(toProblem(answer.status, await answer.json().catch(() => null)));
      }
      if (this.#state.kind !== "live") this.#set({ kind: "live", since: Date.now() });
      const parser = new SseParser();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        this.#heard = Date.now();
        listen(SILENCE_MS);
        const { done, value } = await reader.read();
        if (done) return true;
        for (const message of parser.push(value)) this.#take(message.id, message.data);
      }
    } catch (error) {
      if (silent) throw new Unreachable(error);
      if (connection.signal.aborted && this.#state.kind === "live") return true;
      throw error;
    } finally {
      clearTimeout(silence);
      stop.removeEventListener("abort", abort);
    }
  }

  /** Finds where "now" is, once; what was read before that moment is read again. */
  async #seed(): Promise<void> {
    const asked = Date.now();
    const page = await eventsAfter({}, "latest", 1);
    this.#cursor.seed(page.cursor);
    void this.#queries.invalidateQueries({ predicate: ({ state }) => state.dataUpdatedAt > 0 && state.dataUpdatedAt < asked });
  }

  #take(id: string, data: string): void {
    let event: Event;
    try {
      event = JSON.parse(data) as Event;
    } catch {
      return; // not an event of ours; the cursor stays where it was
    }
    if (!this.#cursor.take(id || event.cursor)) return;
    for (const listener of this.#eventListeners) listener(event);
    this.#batch.add(staleAfter(event));
    this.#flush ??= setTimeout(() => {
      this.#flush = undefined;
      for (const queryKey of this.#batch.drain()) void this.#queries.invalidateQueries({ queryKey });
    }, FLUSH_MS);
  }

  #pause(ms: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(done, ms);
      const wake = done;
      function done(): void {
        clearTimeout(timer);
        resolve();
      }
      this.#wake = wake;
    });
  }

  #set(state: LiveState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** Events about one thing: of these the most particular counts. */
export interface EventFilter {
  site?: string;
  server?: string;
  job?: string;
  run?: string;
}

/** One page of events after `cursor`. */
export function eventsAfter(filter: EventFilter, after: string | undefined, limit: number) {
  return body(api.GET("/v1/events", { params: { query: { ...filter, after, limit } } }));
}

/** One page of events before `cursor`, the newest first; `latest`: the newest of all. */
export function eventsBefore(filter: EventFilter, before: string, limit: number) {
  return body(api.GET("/v1/events", { params: { query: { ...filter, before, limit } } }));
}
