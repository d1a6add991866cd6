import { describe, expect, it } from "vitest";

import { Cursor, KeyBatch, retryDelay, staleAfter } from "./cursor";
import { EventLog } from "./log";
import { SseParser } from "./sse";
import type { Event } from "../api/types";

describe("the stream's reader", () => {
  const text = ': keep-alive\n\nid: 9.1\nevent: run.phase\ndata: {"a":1}\n\nid: 9.2\r\nevent: x\r\ndata: one\r\ndata: two\r\n\r\ndata: last\n\n';
  const messages = [
    { id: "9.1", event: "run.phase", data: '{"a":1}' },
    { id: "9.2", event: "x", data: "one\ntwo" },
    { id: "9.2", event: "message", data: "last" },
  ];

  it("gives the same messages however the stream is cut", () => {
    for (let size = 1; size <= text.length; size += 1) {
      const parser = new SseParser();
      const out = [];
      for (let at = 0; at < text.length; at += size) out.push(...parser.push(text.slice(at, at + size)));
      expect(out).toEqual(messages);
    }
  });

  it("gives nothing for an unfinished message or a comment", () => {
    const parser = new SseParser();
    expect(parser.push(": hello\n\nid: 1\ndata: half")).toEqual([]);
    expect(parser.push("\n\n")).toEqual([{ id: "1", event: "message", data: "half" }]);
  });
});

describe("the cursor", () => {
  it("moves only with events taken in and drops repeated ones", () => {
    const cursor = new Cursor();
    expect(cursor.value).toBeUndefined();
    cursor.seed("5.0");
    expect(cursor.value).toBe("5.0");
    expect(cursor.take("5.1")).toBe(true);
    expect(cursor.take("5.2")).toBe(true);
    // Resumed from 5.1: 5.2 comes again.
    expect(cursor.take("5.2")).toBe(false);
    expect(cursor.take("5.3")).toBe(true);
    cursor.seed("4.0");
    expect(cursor.value).toBe("5.3");
    expect(cursor.take("")).toBe(false);
  });

  it("says what an event makes stale", () => {
    const ids = { job_id: "j", run_id: "r", server_id: "s" };
    expect(staleAfter({ kind: "run.log", ...ids })).toEqual([]);
    expect(staleAfter({ kind: "run.finished", ...ids })).toEqual([["run", "r"], ["job", "j"], ["jobs"], ["server", "s"], ["servers"]]);
    expect(staleAfter({ kind: "executor.started", job_id: null, run_id: null, server_id: null })).toEqual([["executors"], ["sites"]]);
    expect(staleAfter({ kind: "login.failed", job_id: null, run_id: null, server_id: null })).toEqual([]);
  });

  it("asks once for keys that come in a burst", () => {
    const batch = new KeyBatch();
    for (let n = 0; n < 500; n += 1) batch.add([["jobs"], ["job", String(n % 2)]]);
    expect(batch.drain()).toEqual([["jobs"], ["job", "0"], ["job", "1"]]);
    expect(batch.drain()).toEqual([]);
  });

  it("waits longer after each failure, up to 15 s and a fifth", () => {
    expect([0, 1, 2, 5, 9].map((attempt) => retryDelay(attempt, 0.5))).toEqual([500, 1000, 2000, 15_000, 15_000]);
    expect(retryDelay(0, 0)).toBe(400);
    expect(retryDelay(50, 1)).toBe(18_000);
  });
});

describe("a log of the newest events", () => {
  const all = Array.from({ length: 25 }, (_, index) => ({ cursor: `9.${index}`, message: String(index) }) as Event);
  const at = (cursor: string): number => (cursor === "latest" ? all.length : Number(cursor.split(".")[1]));
  const asked: string[] = [];
  const source = {
    after: async (_: object, after: string | undefined, limit: number) => {
      asked.push(`after ${after}`);
      const items = all.slice(after === undefined ? 0 : at(after) + 1).slice(0, limit);
      return { items, cursor: items.at(-1)?.cursor ?? after ?? "", more: items.length === limit };
    },
    before: async (_: object, before: string, limit: number) => {
      asked.push(`before ${before}`);
      const items = all.slice(0, at(before)).slice(-limit).toReversed();
      return { items, cursor: items.at(-1)?.cursor ?? before, more: items.length === limit };
    },
  };
  const shown = (log: EventLog): string[] => log.get().items.map((event) => event.message);

  it("reads no more than asked, follows from the newest and goes back to the first", async () => {
    const log = new EventLog({ server: "s" }, { newest: 10 }, source);
    await log.pump();
    expect(shown(log)).toEqual(all.slice(15).map((event) => event.message));
    expect(log.get()).toMatchObject({ complete: true, older: true });
    all.push({ cursor: "9.25", message: "25" } as Event);
    await log.pump();
    expect(asked).toEqual(["before latest", "after 9.24"]);
    await log.older();
    await log.older();
    expect(shown(log)).toEqual(all.map((event) => event.message));
    expect(log.get().older).toBe(false);
    await log.older();
    expect(asked.length).toBe(4);
  });
});
