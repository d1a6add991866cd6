import { describe, expect, it } from "vitest";

import { type FleetFilter, fleetFilter, jobFilter, jobView, parseSearch, signInTarget, stringifySearch } from "./search";

const roundTrip = (filter: FleetFilter): FleetFilter => fleetFilter(parseSearch(stringifySearch({ ...filter })));

describe("the filter in the URL", () => {
  it("comes back as it was written", () => {
    const filters: FleetFilter[] = [
      {},
      { q: "r750" },
      { q: "123", power: "on" },
      { q: "true" },
      { q: 'a "quoted" & odd=value + ü/日本 #%20' },
      { site: "01930000-0000-7000-8000-000000000001", health: "critical", generation: "idrac9", model: "PowerEdge R750", tag: "canary" },
    ];
    for (const filter of filters) expect(roundTrip(filter)).toEqual(filter);
  });

  it("comes back for any text", () => {
    let seed = 7;
    const random = (): number => (seed = (seed * 48271) % 2147483647) / 2147483647;
    for (let round = 0; round < 300; round += 1) {
      const q = Array.from({ length: 1 + Math.floor(random() * 12) }, () => String.fromCodePoint(33 + Math.floor(random() * 2000))).join("").trim();
      if (q !== "") expect(roundTrip({ q, tag: q })).toEqual({ q, tag: q });
    }
  });

  it("leaves out what is no value of it", () => {
    expect(fleetFilter(parseSearch("?power=melting&health=ok&page=4&q=%20%20&tag="))).toEqual({ health: "ok" });
    expect(fleetFilter({ q: {}, power: ["on"], model: null })).toEqual({});
    expect(jobFilter({ state: "planned", site: "s" })).toEqual({ state: "planned", site: "s" });
    expect(jobFilter({ state: "sleeping" })).toEqual({});
    expect(jobView({ view: "plan", run: "r", line: "9.17", only: "failed" })).toEqual({ view: "plan", run: "r", line: "9.17", only: "failed" });
  });

  it("keeps a log cursor as text, not as a number", () => {
    expect(jobView(parseSearch("?line=9.170")).line).toBe("9.170");
  });
});

describe("the way back after sign-in", () => {
  it("stays on this origin", () => {
    expect(signInTarget({ to: "/jobs/1?run=2" })).toEqual({ to: "/jobs/1?run=2" });
    for (const to of ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/sign-in?to=/x", ""]) {
      expect(signInTarget({ to })).toEqual({});
    }
  });

  it("says that a password was chosen just now, and nothing else", () => {
    expect(signInTarget(parseSearch(stringifySearch({ password: "set" })))).toEqual({ password: "set" });
    expect(signInTarget({ password: "hunter2" })).toEqual({});
  });
});
