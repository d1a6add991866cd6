import { describe, expect, it } from "vitest";

import type { Executor } from "../api/types";
import { confirmers, holdsLastKey, onlineNote, revocationNote } from "./executors";
import { linkToken, newPasswordProblem } from "./password";
import { linkHours, passwordLink, placeOf, removalNote } from "./people";

const sites = [{ id: "01920000-0000-7000-8000-000000000004", name: "closet" }];

describe("people", () => {
  it("a role holds in a site by its name, or in the whole fleet", () => {
    expect(placeOf(sites[0]?.id, sites)).toBe("closet");
    expect(placeOf(null, sites)).toBe("the whole fleet");
    expect(placeOf("01920000-0000-7000-8000-0000000000ff", undefined)).toBe("000000ff");
  });

  it("says what follows when a role is removed", () => {
    const operator = removalNote("Ben", { role: "operator", site_id: "s" }, "closet", true, false);
    expect(operator).toMatch(/^From the next request on, Ben is no longer operator of closet and has no role left\. Jobs .* continue\.$/);
    expect(removalNote("Ben", { role: "admin", site_id: null }, "the whole fleet", false, false)).toMatch(/no longer admin of the whole fleet\. .*links .* stop working\.$/);
  });

  it("says that a role is one's own, and who can give it back", () => {
    const own = removalNote("Ada", { role: "admin", site_id: null }, "the whole fleet", true, true);
    expect(own).toMatch(/^This is your own role\. From the next request on, you are no longer admin of the whole fleet and have no role left: you see nothing and change nothing\. Only another admin of the fleet can give it back\./);
    const one = removalNote("Ada", { role: "admin", site_id: "s" }, "lab", false, true);
    expect(one).toContain("you are no longer admin of lab.");
    expect(one).toContain("Only an admin of lab can give it back.");
  });

  it("a link stands at the control plane's own address, or where the page came from", () => {
    expect(passwordLink({ link: "https://fleet.example/choose-password#t", token: "t" }, "http://127.0.0.1")).toBe("https://fleet.example/choose-password#t");
    expect(passwordLink({ link: null, token: "t" }, "http://127.0.0.1:8420")).toBe("http://127.0.0.1:8420/choose-password#t");
    expect(linkHours(24 * 3600)).toBe("24 hours");
  });

  it("a link without its whole token is none", () => {
    const token = `${"aB3-_".repeat(8)}xyz`;
    for (const whole of [token, `#${token}`]) expect(linkToken(whole)).toBe(token);
    for (const cut of ["", "#", `#${token.slice(1)}`, `#${token}.`]) expect(linkToken(cut)).toBeUndefined();
  });

  it("a new password is long enough and typed twice alike", () => {
    expect(newPasswordProblem("short", "short")).toMatch(/at least 12 characters/);
    expect(newPasswordProblem("long enough, it is", "long enough, is it")).toMatch(/twice/);
    expect(newPasswordProblem("long enough, it is", "long enough, it is")).toBeUndefined();
  });
});

describe("executors", () => {
  const executor = (name: string, more: Partial<Executor> = {}): Executor => ({
    id: name, name, site_id: "closet", state: "active", online: true, runs_held: 0, kinds: [], fingerprint: "", version: "1", enrolled_at: "2026-01-01T00:00:00Z", ...more,
  });
  const one = executor("executor-1");
  const two = executor("executor-2");

  it("says what becomes of the runs and of the key when one is revoked", () => {
    const idle = revocationNote(two, [one, two], "closet");
    expect(idle).toContain("executor-2 cannot sign in again");
    expect(idle).toContain("It holds no run.");
    expect(idle).toContain("private key of closet");
    expect(idle).not.toContain("No other executor");
    expect(revocationNote(executor("executor-2", { runs_held: 3 }), [one], "closet")).toContain("holds 3 runs: once their leases have ended, another executor of closet continues.");
    expect(revocationNote(two, [executor("executor-1", { online: false }), two], "closet")).toContain("No other executor of closet is online");
  });

  it("says that a site is lost with the last executor that holds its key", () => {
    for (const all of [[two], [two, executor("executor-3", { state: "joining" })], [two, executor("executor-1", { state: "revoked" })], [two, executor("x", { site_id: "other" })]]) {
      expect(holdsLastKey(two, all)).toBe(true);
      expect(revocationNote(two, all, "closet")).toContain("the site and its credentials are lost for good");
    }
    expect(holdsLastKey(two, [one, two])).toBe(false);
    expect(holdsLastKey(executor("executor-3", { state: "joining" }), [])).toBe(false);
  });

  it("one that waits for confirmation is not online, whatever it has sent, and is confirmed by those that hold the key", () => {
    const joining = executor("executor-3", { state: "joining" });
    const gone = executor("executor-4", { state: "revoked", online: false });
    expect(onlineNote([executor("executor-1", { online: false }), two, joining, gone])).toBe("1 of 2 online, 1 waits for confirmation");
    expect(onlineNote([one, two, gone])).toBe("2 of 2 online");
    expect(onlineNote([joining, { ...joining, id: "x" }])).toBe("none online, 2 wait for confirmation");
    expect(confirmers(joining, [one, two, joining, gone, executor("far", { site_id: "other" })])).toBe("executor-1 or executor-2");
    expect(confirmers(joining, [joining, gone])).toBe("");
  });
});
