import { describe, expect, it } from "vitest";

import { pairs } from "./shortcuts";

describe("keys that are pressed one after the other", () => {
  it("a key alone is none, however soon after the page was loaded", () => {
    const second = pairs("g");
    expect(second("s", 0)).toBe(false);
    expect(second("s", 700)).toBe(false);
  });

  it("the second follows the first soon, and nothing stands between them", () => {
    const second = pairs("g");
    expect(second("g", 5000)).toBe(false);
    expect(second("s", 6100)).toBe(true);
    expect(second("s", 6200)).toBe(false);
    expect(second("g", 9000)).toBe(false);
    expect(second("s", 10_300)).toBe(false);
    expect(second("g", 20_000)).toBe(false);
    expect(second("x", 20_100)).toBe(true);
    expect(second("s", 20_200)).toBe(false);
  });
});
