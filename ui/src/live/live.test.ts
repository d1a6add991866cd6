import { describe, expect, it } from "vitest";

import { Cursor, KeyBatch, retryDelay, staleAfter } from "./cursor";
import { SseParser } from "./sse";

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
