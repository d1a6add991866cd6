import { readFileSync } from "node:fs";

import { describe, expect, it } from "vitest";

import { beyondTitle, fieldTexts, toProblem } from "../api/problem";
import type { Me, PhaseRecord, Problem, Run } from "../api/types";
import { isAbout } from "../live/log";
import { eventView, parseSearch, stringifySearch } from "./search";
import { missingFleetAdmin, missingRole } from "./roles";
import { canClose, closeNote, closing, effectText, heldBy, shownPhases, shownState } from "./run";
import { NEW_SERVER, parseServers, refusal, SERVERS_EXAMPLE, type ServerForm, serverProblems, taken, toItem, twice } from "./servers";
import { credentialCommand, quote } from "./shell";
import { pausedSite, SITE_NAME, siteConfig, siteForm, siteNameProblem, siteProblems } from "./siteConfig";
import { compareKey, fingerprint } from "./siteKey";

const KEY = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";
/** SHA-256 of 32 bytes 07, computed with another program. */
const PRINT = "4bb0 6f8e 4e3a 7715 d201 d573 d0aa 4237";

describe("the key of a site", () => {
  it("has the fingerprint that the command line prints", async () => {
    const print = await fingerprint(KEY);
    expect(print).toBe(PRINT);
    expect(await fingerprint("no base64 %")).toBeUndefined();
  });

  it("is compared as key, as fingerprint and as the whole output", () => {
    for (const same of [KEY, ` ${KEY}\n`, PRINT, PRINT.replaceAll(" ", "").toUpperCase(), `Key: ${KEY}\nFingerprint: ${PRINT}\nSite: lab\n`]) {
      expect(compareKey(KEY, PRINT, same)).toBe("same");
    }
    for (const other of [OTHER, PRINT.replace("4", "5"), `Key: ${KEY}\nFingerprint: ${PRINT.replace("4", "5")}`, `${OTHER} ${KEY}`]) {
      expect(compareKey(KEY, PRINT, other)).toBe("other");
    }
    for (const none of ["", "lab", KEY.slice(1), PRINT.slice(5), `${PRINT} 0000`, `${PRINT} ${PRINT}`]) expect(compareKey(KEY, PRINT, none)).toBe("no key");
  });

  it("is compared without a fingerprint where the browser computes none", () => {
    expect(compareKey(KEY, undefined, KEY)).toBe("same");
    expect(compareKey(KEY, undefined, PRINT)).toBe("no key");
  });
});

describe("commands for a shell", () => {
  it("are quoted where a shell would read more than text", () => {
    expect(quote("root")).toBe("root");
    expect(quote("a b")).toBe("'a b'");
    expect(quote("it's; rm -rf $HOME")).toBe("'it'\\''s; rm -rf $HOME'");
    expect(quote("-n")).toBe("'-n'");
  });

  it("name what is known and stand words in for the rest", () => {
    expect(credentialCommand({ name: "", site: "my lab", user: "root", siteKey: "" })).toBe(
      "rackhand credentials set NAME --site 'my lab' --user root \\\n  --targets-file servers.json --site-key KEY",
    );
    expect(credentialCommand({ name: "bmc", site: "lab", user: "root", siteKey: KEY })).toContain(`--site-key ${KEY}`);
  });
});

describe("servers to add", () => {
  const good: ServerForm = { ...NEW_SERVER, name: "web-1", address: "https://10.0.0.17", pin: "ab".repeat(32) };

  it("are checked with the rules of the control plane", () => {
    expect(serverProblems(good)).toEqual({});
    expect(serverProblems({ ...good, address: "https://[::1]:8443/redfish/v1/Systems/System.Embedded.1", ipmi: "10.0.0.17:623", tags: "rack:7, lab" })).toEqual({});
    expect(serverProblems({ ...NEW_SERVER, name: "web-2", address: "ipmi://10.0.0.18" })).toEqual({});
    // Whether it requires a key, its address says.
    expect(Object.keys(serverProblems(NEW_SERVER))).toEqual(["name", "address"]);
    expect(Object.keys(serverProblems({ ...good, pin: "" }))).toEqual(["pin"]);
    for (const address of ["http://10.0.0.1", "10.0.0.1", "https://10.0.0.1/", "https://10.0.0.1/redfish/v1", "https://user@10.0.0.1", "https://a b", "ipmi://10.0.0.1/x"]) {
      expect(serverProblems({ ...good, address }).address).toBeDefined();
    }
    expect(serverProblems({ ...good, pin: "AB".repeat(32) }).pin).toBeDefined();
    expect(Object.keys(serverProblems({ ...good, address: "ipmi://10.0.0.18", ipmi: "10.0.0.18" }))).toEqual(["pin", "ipmi"]);
  });

  it("may not have one name or address twice", () => {
    expect(twice([good, { ...good, address: "https://10.0.0.18" }, { ...good, name: "web-3" }])).toEqual([
      { name: "another server here has this name", address: "another server here has this address" },
      { name: "another server here has this name" },
      { address: "another server here has this address" },
    ]);
    expect(twice([NEW_SERVER, NEW_SERVER])).toEqual([{}, {}]);
  });

  it("are read from the list that an executor printed and sent as the API takes them", () => {
    const text = `[
      {"bmc_url":"https://10.0.0.17","name":"web-1","spki_sha256":"${"ab".repeat(32)}"},
      {"bmc_url":"ipmi://10.0.0.18","name":"web-2","tags":["rack:7","lab"],"credential":"bmc","ipmi":null}
    ]`;
    const [first, second] = parseServers(text);
    expect(first).toEqual(good);
    expect(second && toItem(second, "c")).toEqual({ name: "web-2", bmc_url: "ipmi://10.0.0.18", credential_id: "c", tags: ["rack:7", "lab"] });
    expect(toItem({ ...NEW_SERVER, name: "web-2", address: "ipmi://10.0.0.18" }, undefined)).toEqual({ name: "web-2", bmc_url: "ipmi://10.0.0.18" });
    expect(second?.credential).toBe("bmc");
  });

  it("show the old address beside the new one before they are replaced", () => {
    const registered = new Map([["web-1", "https://10.0.0.7"]]);
    expect(taken(good, registered, "lab")).toEqual({
      name: "lab has a server of this name already",
      address: "web-1 is registered at https://10.0.0.7, not at https://10.0.0.17",
    });
    expect(taken({ ...good, address: " https://10.0.0.7" }, registered, "lab")).toEqual({ name: "lab has a server of this name at this address already" });
    expect(taken({ ...good, name: "web-2" }, registered, "lab")).toEqual({});
  });

  it("are not taken from a list that is wrong, which says where", () => {
    expect(parseServers(SERVERS_EXAMPLE).map(serverProblems)).toEqual([{}, {}]);
    expect(() => parseServers("{")).toThrow("not JSON");
    expect(() => parseServers("{}")).toThrow("Expected a JSON list");
    expect(() => parseServers('[{"name":"a"}, 4]')).toThrow("Entry 2 is not an object");
    expect(() => parseServers('[{"name":"a","bmc":"x"}]')).toThrow("Entry 1 (a): bmc is not valid");
    expect(() => parseServers('[{"name":"a","tags":["two words"]}]')).toThrow("tags is not valid");
    expect(() => parseServers(JSON.stringify(Array.from({ length: 1001 }, () => ({}))))).toThrow("at most 1000");
  });

  it("show a refusal beside the field that it names", () => {
    expect(refusal("bmc_url: a BMC address starts with https:// or ipmi://; tags[3]: length is lower than 1")).toEqual({
      fields: { address: "a BMC address starts with https:// or ipmi://", tags: "length is lower than 1" },
      rest: "",
    });
    expect(refusal("The site has no such credential.")).toEqual({ fields: {}, rest: "The site has no such credential." });
    expect(refusal("toString: x").fields).toEqual({});
  });
});

describe("the settings of a site", () => {
  const config = { lease_ttl_ms: 30_000, max_mutating_runs: 16, hardware_paused: true, second_person: false };

  it("change what was typed and leave the rest", () => {
    expect(siteConfig({ ...siteForm(config), maxRuns: "4", secondPerson: true }, config)).toEqual({ ...config, max_mutating_runs: 4, second_person: true });
  });

  it("say who has paused it, where that is known", () => {
    const at = "2026-01-02T03:04:05Z";
    const said = pausedSite({ name: "lab", paused_by_name: "Ada", paused_at: at });
    // In the words of the control plane, whose texts stand beside it: in whatever zone the browser is.
    expect(said).toBe("lab (by Ada since 2026-01-02 at 03:04 UTC)");
    expect(pausedSite({ name: "lab" })).toBe("lab");
  });

  it("are checked with the rules of the control plane", () => {
    expect(siteProblems(siteForm(config))).toEqual({});
    for (const lease of ["", "0.499", "600.001", "1e2", "-5", "1.2345"]) expect(siteProblems({ ...siteForm(config), lease }).lease).toBeDefined();
    expect(siteForm(config).lease).toBe("30");
    expect(siteConfig({ ...siteForm(config), lease: "2.3" }, config).lease_ttl_ms).toBe(2300);
    for (const maxRuns of ["0", "10001", "4.5"]) expect(siteProblems({ ...siteForm(config), maxRuns }).maxRuns).toBeDefined();
  });
});

describe("the name of a site", () => {
  it("follows one rule, which the control plane and this page say alike", () => {
    for (const name of ["lab", "my lab", "Zürich 2", "n".repeat(80)]) expect(siteNameProblem(name)).toBeUndefined();
    for (const name of ["", " lab", "la\u200bb", "Rackhand", "n".repeat(81)]) expect(siteNameProblem(name)).toBe(`A${SITE_NAME.slice(1)}.`);
    expect(readFileSync("../schema/src/check.rs", "utf8")).toContain(`"${SITE_NAME}"`);
  });
});

describe("the state of a run", () => {
  it("is running while the device says how far it is", () => {
    expect(shownState({ state: "waiting", percent: 0 })).toBe("running");
    expect(shownState({ state: "waiting", percent: null })).toBe("waiting");
    expect(shownState({ state: "settling", percent: 40 })).toBe("settling");
  });
});

describe("a temporary change", () => {
  const job = { object: "bmc_job", property: "BIOS.Setup.1-1", prior: null, wanted: { job: "JID_1", guessed: false } };
  const power = { object: "host_power", property: "state", prior: "on", wanted: "restarted" };

  it("says what became of it", () => {
    expect(effectText({ ...job, state: "settled" })).toBe("update job JID_1: gone");
    expect(effectText({ ...job, wanted: { job: null }, state: "intended" })).toBe("update job for BIOS.Setup.1-1: about to be queued");
    expect(effectText({ ...job, wanted: { job: "JID_1", guessed: true }, state: "settled" })).toBe("update job JID_1 (assumed): left to the BMC");
    expect(effectText({ ...power, state: "intended" })).toBe("host power: about to be restarted");
    expect(effectText({ ...power, state: "settled" })).toBe("host power: on again");
    expect(effectText({ ...power, prior: "off", wanted: "on", state: "applied" })).toBe("host power: on for the update");
    expect(effectText({ ...power, prior: "off", wanted: "on", state: "settled" })).toBe("host power: off again");
    expect(effectText({ ...power, state: "conflict" })).toBe("host power: not restored; look at the server");
  });

  it("is said also where this page does not know it", () => {
    expect(effectText({ object: "virtual_media", property: "cd", prior: null, wanted: "iso", state: "settled" })).toBe("virtual media cd: restored");
    expect(effectText({ ...job, state: "half_way" as "settled" })).toBe("update job JID_1: half way");
  });
});

describe("a problem", () => {
  const problem: Problem = { type: "", title: "The request is not valid", status: 422, code: "invalid-request", detail: "new: is too common" };

  it("says each field once, by the label that people see", () => {
    const fields = ["new", "new", "targets[3]", "params.packages[PowerEdge R7.50].sha256", "file_size"].map((field) => ({ field, detail: "is not valid" }));
    expect(fieldTexts({ ...problem, fields })).toEqual(["New password: is not valid", "Servers: is not valid", "SHA-256: is not valid", "File size: is not valid"]);
    expect(fieldTexts(problem)).toEqual([]);
    expect(toProblem(problem.status, problem)).toMatchObject(problem);
    expect(toProblem(problem.status, { ...problem, fields })).toMatchObject({ ...problem, fields });
    const odd = toProblem(502, { ...problem, status: "409", trace_id: { id: 1 }, needs_role: {}, type: null });
    expect(odd).toEqual({ ...problem, status: 502, fields: [], trace_id: undefined, needs_role: undefined, type: "" });
    for (const foreign of [{ ...problem, fields: { a: "b" } }, { ...problem, fields: [null] }, { ...problem, detail: undefined }, { ...problem, code: 7 }, null, "text"])
      expect(toProblem(502, foreign)).toMatchObject({ title: "HTTP 502", code: "" });
  });

  it("does not say its title twice", () => {
    const title = "The database is not responding";
    expect(beyondTitle({ ...problem, title, detail: `${title}. Nothing is lost; try again in a moment.` })).toBe("Nothing is lost; try again in a moment.");
    for (const detail of [title, `${title}.`, ""]) expect(beyondTitle({ ...problem, title, detail })).toBe("");
    expect(beyondTitle({ ...problem, title, detail: `${title}s well` })).toBe(`${title}s well`);
  });
});

describe("the phases of a run", () => {
  const phase = (name: string, state: PhaseRecord["state"], finished_at?: string): PhaseRecord => ({ phase: name, state, started_at: "2026-01-02T03:00:00Z", finished_at: finished_at ?? null, evidence: null });
  const phases = [phase("read", "done", "2026-01-02T03:01:00Z"), phase("flash", "running")];
  const run = (state: Run["state"]) => ({ state, since: "2026-01-02T03:05:00Z", finished_at: "2026-01-02T03:04:00Z", phases });

  it("end with it, whatever had not been reported as done", () => {
    for (const state of ["failed", "cancelled", "unknown", "succeeded", "no_change"] as const) {
      const shown = shownPhases(run(state));
      expect(shown[0]).toEqual(phases[0]);
      expect(shown[1]).toMatchObject({ state: "ended", finished_at: "2026-01-02T03:04:00Z" });
    }
  });

  it("go on as long as it does", () => {
    for (const state of ["running", "waiting", "settling"] as const) expect(shownPhases({ ...run(state), finished_at: null })).toEqual(phases);
  });
});

describe("closing a run", () => {
  const run = (state: Run["state"], executor?: string): Run => ({ state, executor: executor ?? null, server: "web-1" }) as Run;

  it("is offered for what has not ended and for an unknown outcome", () => {
    const states: Run["state"][] = ["queued", "leased", "running", "waiting", "settling", "succeeded", "no_change", "failed", "cancelled", "unknown"];
    const offered = states.filter((state) => canClose({ state, cancel_requested: false }, { cancel_requested: false }, false, true));
    expect(offered).toEqual(["queued", "leased", "running", "waiting", "settling", "unknown"]);
  });

  it("is not offered again for an unknown outcome that no longer holds its server", () => {
    const unknown = { state: "unknown", cancel_requested: false } as const;
    const job = { cancel_requested: false };
    expect(canClose(unknown, job, true, true)).toBe(false);
    // Until its events are here nobody knows.
    expect(canClose(unknown, job, false, false)).toBe(false);
    // Its job was cancelled afterwards, which gave the server back; one that was still open then holds it.
    expect(canClose(unknown, { cancel_requested: true }, false, true)).toBe(false);
    expect(canClose({ ...unknown, cancel_requested: true }, { cancel_requested: true }, false, true)).toBe(true);
    expect(canClose({ ...unknown, state: "running" }, job, false, false)).toBe(true);
  });

  it("is said by the run's own events, with who did it", () => {
    const event = (kind: string, actor: string) => ({ kind, actor, at: "2026-01-02T03:04:05Z" });
    const lines = [event("run.finished", "executor-1"), event("run.closed", "Ada"), event("run.log", "executor-1")];
    expect(closing(lines)?.actor).toBe("Ada");
    expect(closing(lines.slice(0, 1))).toBeUndefined();
  });

  it("waits for the executor that works on it", () => {
    expect(heldBy(run("running", "e"), { name: "one", online: true })).toContain("Executor one works on this run");
    expect(heldBy(run("running", "e"), { name: "one", online: false })).toBeUndefined();
    expect(heldBy(run("waiting"), undefined)).toBeUndefined();
    expect(heldBy(run("unknown", "e"), { name: "one", online: true })).toBeUndefined();
  });

  it("says what becomes of it", () => {
    expect(closeNote(run("unknown"))).toContain("stays unknown");
    expect(closeNote(run("waiting"))).toContain("Nothing is done to web-1");
  });
});

describe("roles on the new pages", () => {
  const me = (grants: { role: string; site_id: string | null }[]): Me => ({ id: "u", email: "a@b", name: "A", grants }) as Me;

  it("an admin of one site does not lead the fleet", () => {
    expect(missingFleetAdmin(me([{ role: "admin", site_id: null }]))).toBeUndefined();
    expect(missingFleetAdmin(me([{ role: "admin", site_id: "s1" }]))).toContain("admin of the whole fleet");
    expect(missingRole(me([{ role: "admin", site_id: "s1" }]), "admin", "s2", "lab")).toBe("Requires the role admin in lab; ask an admin of the site.");
  });
});

describe("the events of a place", () => {
  const event = { run_id: "r", job_id: "j", server_id: "v", site_id: "s" } as Parameters<typeof isAbout>[0];

  it("are those that the server would list: the most particular filter counts", () => {
    expect(isAbout(event, {})).toBe(true);
    expect(isAbout(event, { site: "s" })).toBe(true);
    expect(isAbout(event, { site: "t" })).toBe(false);
    expect(isAbout(event, { server: "v", site: "t" })).toBe(true);
    expect(isAbout(event, { run: "q", job: "j" })).toBe(false);
  });

  it("are filtered by the URL", () => {
    expect(eventView(parseSearch(stringifySearch({ site: "s", server: "v", lines: "shown" })))).toEqual({ site: "s", server: "v", lines: "shown" });
    expect(eventView({ lines: "perhaps", level: "warn" })).toEqual({});
  });
});
