import { describe, expect, it } from "vitest";

import { age, byNumber, bytes, clock, count, duration, generation, jobKind, number, withoutName, withoutPercent } from "./format";

describe("a text beside a name", () => {
  it("goes without the name", () => {
    expect(withoutName("bmc-1: restarts", "bmc-1")).toBe("restarts");
    expect(withoutName("bmc-11: restarts", "bmc-1")).toBe("bmc-11: restarts");
  });
  it("goes without the percentage that is shown beside it", () => {
    expect(withoutPercent("The job is in progress, 74 %", 74)).toBe("The job is in progress");
    expect(withoutPercent("The job is in progress, 74 %", 7)).toBe("The job is in progress, 74 %");
    expect(withoutPercent("The host starts", null)).toBe("The host starts");
  });
  it("orders by number", () => {
    expect(["idrac10", "idrac9", "idrac8"].sort(byNumber)).toEqual(["idrac8", "idrac9", "idrac10"]);
  });
});

describe("formats", () => {
  it("durations have at most two units", () => {
    const s = 1000;
    expect([0, 0.9 * s, s, 4 * s, 59.4 * s, 60 * s, 125 * s, 14 * 60 * s, 3600 * s, 7500 * s, 26 * 3600 * s, 12 * 86400 * s].map((ms) => duration(ms))).toEqual([
      "under 1 s", "under 1 s", "1 s", "4 s", "59 s", "1 min", "2 min 5 s", "14 min", "1 h", "2 h 5 min", "1 d 2 h", "12 d",
    ]);
    expect(duration(-5)).toBe("under 1 s");
  });

  it("reads times as Postgres prints them", () => {
    const now = Date.parse("2026-11-21T01:50:00Z");
    expect(age("2026-11-21T01:49:18.123456+00:00", now)).toBe("42 s ago");
    expect(age("2026-11-21T01:50:01Z", now)).toBe("now");
    expect(clock("2026-11-20T01:49:18.123456+00:00", now)).toMatch(/^2026-11-\d\d \d\d:\d\d:18$/);
    expect(clock("2026-11-21T01:50:00Z", now)).toMatch(/^\d\d:\d\d:00$/);
  });

  it("sizes, counts and names", () => {
    expect([0, 1023, 1024, 14876544, 8589934592].map(bytes)).toEqual(["0 B", "1023 B", "1.0 KiB", "14 MiB", "8.0 GiB"]);
    expect(count(1, "match", "matches")).toBe("1 match");
    expect(count(1234, "server")).toBe("1\u2009234 servers");
    expect(number(1234567)).toBe("1\u2009234\u2009567");
    expect([generation("idrac10"), generation("openbmc")]).toEqual(["iDRAC 10", "openbmc"]);
    expect(jobKind("firmware_update")).toBe("Firmware update");
  });
});
