/**
 * All events of one run, job or server from the first on, kept up to date: the stream only says that
 * there is more, and the missing part is fetched by this log's own cursor. So nothing is skipped or
 * doubled, whatever the stream missed.
 */
import { useEffect, useState, useSyncExternalStore } from "react";

import type { Event } from "../api/types";
import { useLive } from "./LiveProvider";
import { eventsAfter, type LiveStream } from "./stream";

export interface LogFilter {
  run?: string;
  job?: string;
  server?: string;
}

export interface LogState {
  items: Event[];
  /** Everything up to now is here. */
  complete: boolean;
  error?: unknown;
}

/** The most that one page may have. */
const PAGE = 1000;
const FALLBACK_MS = 5000;

class EventLog {
  #filter: LogFilter;
  #cursor: string | undefined;
  #state: LogState = { items: [], complete: false };
  #listeners = new Set<() => void>();
  #busy = false;
  #again = false;
  #stopped = false;

  constructor(filter: LogFilter) {
    this.#filter = filter;
  }

  get = (): LogState => this.#state;

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Fetches what is new. Calls while it does so are remembered as one. */
  pump = async (): Promise<void> => {
    if (this.#stopped) return;
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    try {
      for (;;) {
        this.#again = false;
        const page = await eventsAfter(this.#filter, this.#cursor, PAGE);
        if (this.#stopped) return;
        this.#cursor = page.cursor;
        const more = page.items.length >= PAGE;
        if (page.items.length > 0 || !this.#state.complete || this.#state.error !== undefined) {
          this.#set({ items: page.items.length > 0 ? this.#state.items.concat(page.items) : this.#state.items, complete: !more });
        }
        if (!more && !this.#again) return;
      }
    } catch (error) {
      if (!this.#stopped) this.#set({ ...this.#state, error });
    } finally {
      this.#busy = false;
    }
  };

  run(live: LiveStream): () => void {
    this.#stopped = false;
    void this.pump();
    let soon: ReturnType<typeof setTimeout> | undefined;
    const off = live.onEvent((event) => {
      const { run, job, server } = this.#filter;
      if ((run && event.run_id !== run) || (job && event.job_id !== job) || (server && event.server_id !== server)) return;
      soon ??= setTimeout(() => {
        soon = undefined;
        void this.pump();
      }, 120);
    });
    const fallback = setInterval(() => {
      if (live.state.kind === "lost" || this.#state.error !== undefined) void this.pump();
    }, FALLBACK_MS);
    return () => {
      this.#stopped = true;
      off();
      clearTimeout(soon);
      clearInterval(fallback);
    };
  }

  #set(state: LogState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** The log for `filter`. Give the component a `key` when the filter changes. */
export function useEventLog(filter: LogFilter): LogState & { retry: () => void } {
  const live = useLive();
  const [log] = useState(() => new EventLog(filter));
  useEffect(() => log.run(live), [log, live]);
  const state = useSyncExternalStore(log.subscribe, log.get);
  return { ...state, retry: () => void log.pump() };
}
