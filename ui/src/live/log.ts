/**
 * The events of one run, job, server or site, or of the whole fleet, kept up to date: all from the first on, or the newest ones and
 * older ones on request. The stream only says that there is more, and the missing part is fetched by this
 * log's own cursor. So nothing is skipped or doubled, whatever the stream missed.
 */
import { useEffect, useState, useSyncExternalStore } from "react";

import type { Event } from "../api/types";
import { useLive } from "./LiveProvider";
import { type EventFilter, eventsAfter, eventsBefore, type LiveStream } from "./stream";

export interface LogOptions {
  /** Begin with so many of the newest instead of with the first. */
  newest?: number;
}

export interface LogState {
  items: Event[];
  /** Everything up to now is here. */
  complete: boolean;
  /** There may be events before these. */
  older: boolean;
  error?: unknown;
}

/** The most that one page may have. */
const PAGE = 1000;
const FALLBACK_MS = 5000;

/** What it asks; given, so that tests need no server. */
export interface Source {
  after: typeof eventsAfter;
  before: typeof eventsBefore;
}

export class EventLog {
  #filter: EventFilter;
  #newest: number | undefined;
  #source: Source;
  #cursor: string | undefined;
  /** With `newest`: where the older ones begin. */
  #oldest: string | undefined;
  #state: LogState = { items: [], complete: false, older: false };
  #listeners = new Set<() => void>();
  #busy = false;
  #again = false;
  #stopped = false;

  constructor(filter: EventFilter, { newest }: LogOptions = {}, source: Source = { after: eventsAfter, before: eventsBefore }) {
    this.#filter = filter;
    this.#newest = newest;
    this.#source = source;
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
      if (this.#newest !== undefined && this.#cursor === undefined) {
        await this.#begin(this.#newest);
        if (!this.#again) return;
      }
      for (;;) {
        this.#again = false;
        const page = await this.#source.after(this.#filter, this.#cursor, PAGE);
        if (this.#stopped) return;
        this.#cursor = page.cursor;
        const more = page.more;
        if (page.items.length > 0 || !this.#state.complete || this.#state.error !== undefined) {
          const items = page.items.length > 0 ? this.#state.items.concat(page.items) : this.#state.items;
          this.#set({ items, complete: !more, older: this.#state.older });
        }
        if (!more && !this.#again) return;
      }
    } catch (error) {
      if (!this.#stopped) this.#set({ ...this.#state, error });
    } finally {
      this.#busy = false;
    }
  };

  /** Reads the newest ones; following begins behind the last of them. */
  async #begin(newest: number): Promise<void> {
    this.#again = false;
    const page = await this.#source.before(this.#filter, "latest", newest);
    if (this.#stopped) return;
    this.#cursor = page.items[0]?.cursor ?? page.cursor;
    this.#oldest = page.cursor;
    this.#set({ items: page.items.toReversed(), complete: true, older: page.more });
  }

  /** Fetches the events before the ones that are here. */
  older = async (): Promise<void> => {
    const oldest = this.#oldest;
    if (oldest === undefined || !this.#state.older) return;
    try {
      const limit = this.#newest ?? PAGE;
      const page = await this.#source.before(this.#filter, oldest, limit);
      if (this.#stopped || this.#oldest !== oldest) return;
      this.#oldest = page.cursor;
      this.#set({ ...this.#state, items: page.items.toReversed().concat(this.#state.items), older: page.more, error: undefined });
    } catch (error) {
      if (!this.#stopped) this.#set({ ...this.#state, error });
    }
  };

  run(live: LiveStream): () => void {
    this.#stopped = false;
    void this.pump();
    let soon: ReturnType<typeof setTimeout> | undefined;
    const off = live.onEvent((event) => {
      if (!isAbout(event, this.#filter)) return;
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

/** Whether an event is one of those that `filter` asks the server for. */
export function isAbout(event: Event, { run, job, server, site }: EventFilter): boolean {
  if (run !== undefined) return event.run_id === run;
  if (job !== undefined) return event.job_id === job;
  if (server !== undefined) return event.server_id === server;
  return site === undefined || event.site_id === site;
}

/** The log for `filter`. Give the component a `key` when the filter changes. */
export function useEventLog(filter: EventFilter, options?: LogOptions): LogState & { retry: () => void; loadOlder: () => Promise<void> } {
  const live = useLive();
  const [log] = useState(() => new EventLog(filter, options));
  useEffect(() => log.run(live), [log, live]);
  const state = useSyncExternalStore(log.subscribe, log.get);
  return { ...state, retry: () => void log.pump(), loadOlder: log.older };
}
