import { describe, expect, it } from "vitest";

import type { Job, JobSpec, Me, Plan, PlanStep, Run } from "../api/types";
import { approveLabel, cancelNote, idleNote, jobTitle, noRunsNote, pausedNote, pauseNote, planOrder, planSums, powerWords, resumeNote, shownJobState } from "./job";
import { laneText, laneWords } from "../pages/job/Lanes";
import { isBlank, PACKAGES_EXAMPLE, packageFor, packageProblems, parsePackages, toForm, toPackage } from "./packages";
import { holds, missingRole, missingRoleAnywhere } from "./roles";
import { axis } from "./timeline";

const me = (grants: Partial<Me["grants"][number]>[]): Me => ({ id: "u", email: "a@b", name: "A", grants: grants as Me["grants"] });

describe("a job that is cancelled", () => {
  it("says so while runs are still followed to their end", () => {
    expect(shownJobState({ state: "running", cancel_requested: true })).toBe("cancelling");
    expect(shownJobState({ state: "paused", cancel_requested: true })).toBe("cancelling");
    expect(shownJobState({ state: "running", cancel_requested: false })).toBe("running");
    expect(shownJobState({ state: "cancelled", cancel_requested: true })).toBe("cancelled");
  });
});

describe("roles", () => {
  it("a role includes those before it, in its site or the whole fleet", () => {
    expect(holds(me([{ role: "admin", site_id: null }]), "operator", "s1")).toBe(true);
    expect(holds(me([{ role: "operator", site_id: "s1" }]), "operator", "s1")).toBe(true);
    expect(holds(me([{ role: "operator", site_id: "s2" }]), "operator", "s1")).toBe(false);
    expect(missingRole(me([{ role: "viewer", site_id: null }]), "operator", "s1", "lab")).toContain("role operator in lab");
    expect(missingRole(me([]), "viewer", "s1", "lab")).toBeDefined();
  });

  it("are missing as long as no site is chosen only where no site gives them", () => {
    const sites = [
      { id: "s1", name: "lab" },
      { id: "s2", name: "rack" },
    ];
    const operator = me([{ role: "operator", site_id: "s2" }]);
    expect(missingRoleAnywhere(operator, "operator", sites, undefined)).toBeUndefined();
    expect(missingRoleAnywhere(operator, "operator", sites, "s1")).toContain("role operator in lab");
    expect(missingRoleAnywhere(me([{ role: "viewer", site_id: null }]), "operator", sites, undefined)).toContain("role operator in a site");
    expect(missingRoleAnywhere(me([]), "operator", undefined, undefined)).toBeUndefined();
  });
});

const step = (reboot: "host" | "bmc" | "none" | "host_at_once") =>
  ({ step: "firmware", component: "BIOS", component_name: "BIOS", from: "1", to: "2", sha256: "a".repeat(64), reboot }) as const;
const target = (server: string, rest: Partial<Plan["targets"][number]>) => ({
  server_id: server,
  server,
  steps: [],
  blockers: [],
  warnings: [],
  estimated_minutes: 5,
  ...rest,
});

describe("the title of a firmware job", () => {
  it("counts nothing where the plan is not known, as in a list", () => {
    const spec = (...names: string[]): JobSpec =>
      ({ kind: "firmware_update", params: { allow_downgrade: false, packages: Object.fromEntries(names.map((name, index) => [`idrac${index}`, { name }])) } }) as unknown as JobSpec;
    expect(jobTitle(spec("BIOS 1.15.2"))).toBe("Firmware: BIOS 1.15.2");
    expect(jobTitle(spec("BIOS 1.15.2", "BIOS 1.15.2", "BIOS 2.19.1", "BIOS 2.8"))).toBe("Firmware: BIOS 1.15.2, …");
  });

  it("counts no package that no server gets or has", () => {
    const packages = Object.fromEntries(["a", "b", "c"].map((key) => [key, { name: `BIOS ${key}`, sha256: key.repeat(64), version: `1.${key}` }]));
    const spec = { kind: "firmware_update", params: { allow_downgrade: false, packages } } as unknown as JobSpec;
    const plan = (steps: PlanStep[]): Plan => ({ digest: "", estimated_minutes: 0, targets: [target("s", { steps })] });
    const installed: PlanStep = { step: "already_installed", component: "BIOS", version: "1.c" };
    const update: PlanStep = { ...step("host"), sha256: "b".repeat(64) };
    expect(jobTitle({ ...spec, plan: plan([update]) })).toBe("Firmware: BIOS b");
    expect(jobTitle({ ...spec, plan: plan([update, installed]) })).toBe("Firmware: 2 packages (BIOS b, …)");
    expect(jobTitle({ ...spec, plan: plan([]) })).toBe("Firmware: BIOS a, …");
  });
});

describe("a paused job", () => {
  const run = { state: "queued", phase: "", reason: "", detail: "", server: "s", since: new Date(0).toISOString() } as unknown as Run;

  it("says why it is paused and what waits", () => {
    const automatic = pausedNote({ state_reason: "Paused automatically after 2 failures", runs: { failed: 2, queued: 3 } });
    expect(automatic).toBe("Paused automatically after 2 failures. 3 queued runs wait until someone resumes or cancels the job.");
    expect(pausedNote({ state_reason: "look at rack 7.", runs: { queued: 1 } })).toBe("Paused: look at rack 7. 1 queued run waits until someone resumes or cancels the job.");
    expect(pausedNote({ state_reason: "look", runs: { failed: 2 } })).toBe("Paused: look. No run is queued; resume or cancel the job.");
  });

  it("is why its queued runs wait", () => {
    expect(laneText(run, 5000, { paused: true })).toBe("the job is paused · queued for 5 s");
    expect(laneText(run, 5000, {})).toBe("queued for 5 s");
    expect(laneText({ ...run, state: "running" }, 5000, { paused: true })).not.toContain("paused");
  });
});

describe("what stands under the name of a run", () => {
  const run = { state: "failed", phase: "read", reason: "credential-suspended", detail: "s: The credential lab-root is suspended.", server: "s", since: new Date(0).toISOString(), created_at: new Date(0).toISOString(), finished_at: new Date(400).toISOString(), executor_name: "executor-1" } as unknown as Run;

  it("begins with the cause, which stands apart", () => {
    expect(laneWords(run, 9000, {})).toEqual({ why: "The credential lab-root is suspended", stands: "in read after under 1 s · on executor-1" });
    expect(laneText(run, 9000, { narrow: true })).toBe("The credential lab-root is suspended · in read after under 1 s");
    expect(laneWords({ ...run, state: "running", detail: "", reason: "", phase: "flash" }, 9000, {})).toEqual({ why: "", stands: "flash for 9 s · on executor-1" });
  });
});

describe("plans", () => {
  const plan: Plan = {
    digest: "d".repeat(64),
    estimated_minutes: 12,
    targets: [
      target("a", { steps: [step("host")] }),
      target("b", { steps: [{ step: "already_installed", component: "BIOS", version: "2" }] }),
      target("c", { steps: [step("host_at_once")], blockers: ["job in progress"] }),
      target("d", { steps: [step("bmc")], warnings: ["health is warning"] }),
    ],
  };

  it("sums what will happen; blocked targets restart nothing", () => {
    expect(planSums(plan)).toEqual({ change: 2, nothing: 1, blocked: 1, warnings: 1, hostReboots: 1, bmcReboots: 1 });
    expect(planOrder(plan.targets).map((item) => item.server)).toEqual(["c", "d", "a", "b"]);
  });

  it("takes a kind of step that it does not know for a change", () => {
    const newer = { step: "wipe_disks" } as unknown as Plan["targets"][number]["steps"][number];
    const changing = { ...plan, targets: [target("e", { steps: [newer] })] };
    expect(planSums(changing)).toMatchObject({ change: 1, nothing: 0, hostReboots: 1 });
    expect(approveLabel({ kind: "wipe_disks", plan: changing } as unknown as Job)).toBe("Approve: change 1 server");
  });

  it("say from which power state to which, where it is known", () => {
    expect(powerWords("force_off", "on")).toBe("on → off");
    expect(powerWords("power_cycle", "powering_off")).toBe("powering off → on");
    expect(powerWords("graceful_shutdown", undefined)).toBe("not known → off");
  });

  it("the button says what it does", () => {
    const job = { kind: "firmware_update", plan } as Job;
    expect(approveLabel(job)).toBe("Approve: update 2 servers, restart 1 host");
  });

  it("of a job without runs says why there are none", () => {
    expect(noRunsNote({ state: "planned", plan })).toBe("They come with the approval.");
    expect(noRunsNote({ state: "cancelled", plan })).toBe("The job ended before its plan was approved.");
    expect(noRunsNote({ state: "succeeded", plan: { ...plan, targets: plan.targets.slice(2, 3) } })).toBe("The plan blocked every server.");
  });

  it("one that changes nothing is not approved", () => {
    expect(idleNote(plan)).toBeUndefined();
    expect(idleNote({ ...plan, targets: plan.targets.slice(1, 2) })).toBe("Nothing is to be changed: every server is as requested already.");
    expect(idleNote({ ...plan, targets: plan.targets.slice(1, 3) })).toContain("that is not blocked");
    expect(idleNote({ ...plan, targets: plan.targets.slice(2, 3) })).toContain("Every server is blocked");
  });
});

describe("what is asked before a job is changed", () => {
  const policy = { max_parallel: 8, pause_after_failures: 3, start_after: null };

  it("resuming keeps the brake and says that failures are counted anew", () => {
    expect(resumeNote({ runs: { queued: 5, failed: 3 }, policy })).toBe("5 runs may start again, at most 8 at once. Failures are counted from now: the job pauses again after 3 more failures.");
    expect(resumeNote({ runs: { queued: 1 }, policy: { ...policy, pause_after_failures: 1 } })).toContain("after 1 more failure.");
    expect(resumeNote({ runs: { queued: 1 }, policy: { ...policy, pause_after_failures: 0 } })).toContain("never pauses on failures");
  });

  it("cancelling speaks of no runs that there are not", () => {
    expect(cancelNote({ state: "running", runs: { queued: 2, failed: 2 } })).toBe("2 runs will not start.");
    expect(cancelNote({ state: "paused", runs: { running: 1 } })).toMatch(/^1 run under way ends at the next safe point/);
    expect(cancelNote({ state: "paused", runs: { failed: 2 } })).toBe("No run is waiting or under way; the job ends.");
    expect(cancelNote({ state: "planned", runs: {} })).toContain("Nothing has started");
    expect(pauseNote({ runs: { queued: 1, settling: 1, waiting: 1 } })).toBe("No new run starts. 2 runs under way continue to a safe end. 1 run waits.");
  });
});

describe("packages", () => {
  const item = { name: "BIOS 2", file_name: "B.EXE", url: "http://repo/B.EXE", sha256: "a".repeat(64), size: 12, software_id: "159", version: "2" };

  it("the example of a list of packages is one", () => {
    expect(Object.values(parsePackages(PACKAGES_EXAMPLE)).map(packageProblems)).toEqual([{}]);
  });

  it("are read bare or wrapped, and survive the form", () => {
    for (const text of [{ idrac9: item }, { packages: { idrac9: item } }, { kind: "firmware_update", params: { packages: { idrac9: item } } }]) {
      const { idrac9 } = parsePackages(JSON.stringify(text));
      expect(idrac9 && toPackage(idrac9)).toEqual(item);
    }
    expect(() => parsePackages("{")).toThrow("not JSON");
    expect(() => parsePackages("[]")).toThrow("Expected an object");
    expect(() => parsePackages('{"idrac9": 4}')).toThrow("“idrac9” is not a package");
  });

  it("go by model, then generation, then any", () => {
    const server = { model: "PowerEdge R750", generation: "idrac9" };
    expect(packageFor(server, ["any", "idrac9", "PowerEdge R750"])).toBe("PowerEdge R750");
    expect(packageFor(server, ["any", "idrac9"])).toBe("idrac9");
    expect(packageFor(server, ["any", "idrac8"])).toBe("any");
    expect(packageFor({ model: null }, ["idrac8"])).toBeUndefined();
  });

  it("are checked with the server's rules", () => {
    expect(packageProblems(toForm(item))).toEqual({});
    expect(Object.keys(packageProblems(toForm({ ...item, sha256: "A".repeat(64), url: "ftp://x", size: 0 })))).toEqual(["url", "sha256", "size"]);
    expect(packageProblems(toForm({ ...item, size: 8_589_934_593 })).size).toBeDefined();
    expect(isBlank(toForm({}))).toBe(true);
  });
});

describe("the time axis", () => {
  it("cuts idle gaps and keeps order", () => {
    const scale = axis([{ start: 0, end: 4000 }, { start: 3_600_000, end: 3_604_000 }], 9e9, 2000);
    expect(scale.length).toBe(10_000);
    expect(scale.cuts).toEqual([{ at: 0.5, ms: 3_596_000 }]);
    expect([0, 4000, 3_600_000, 3_604_000].map((time) => scale.at(time))).toEqual([0, 0.4, 0.6, 1]);
  });

  it("grows with a span that goes on, and is empty without spans", () => {
    expect(axis([{ start: 1000 }], 5000).length).toBe(4000);
    expect(axis([], 5000).length).toBe(0);
    expect(axis([{ start: 9000, end: 8000 }], 9500).at(9000)).toBe(0);
  });
});
