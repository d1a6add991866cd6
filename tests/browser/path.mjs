// The whole path in a real browser: sign in, find servers, plan a firmware update, approve it, watch it,
// read the new version back. Every page is checked by axe in both themes. Locators by role and label only.
//
// Environment:
//   URL            of the control plane, e.g. http://127.0.0.1:8420
//   EMAIL          of an operator
//   PASSWORD_FILE  holds the password, a trailing newline is ignored
//   PACKAGES_JSON  path of a file with {model, generation or any: package}, as in the parameters of
//                  `firmware_update`; also when they stand under `packages` or `params`
//   OUT            folder for screenshots (default: ./out)
//   SITE           name of the site to work in (default: the only one, or all)
//   CHROMIUM       path of the browser (default: /usr/bin/chromium)
//   JOB_TIMEOUT_S  how long the job may take (default: 300)
// Exit status: 0 when everything held, 1 otherwise, with the first failure on stderr and in OUT/failure.txt.

import { generateKeyPairSync } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const need = (name) => {
  const value = process.env[name];
  if (!value) throw new Error(`the environment variable ${name} is missing`);
  return value;
};

const base = need("URL").replace(/\/$/, "");
const email = need("EMAIL");
const password = (await readFile(need("PASSWORD_FILE"), "utf8")).replace(/\r?\n$/, "");
const packagesText = await readFile(need("PACKAGES_JSON"), "utf8");
const out = process.env.OUT ?? "out";
const jobTimeout = Number(process.env.JOB_TIMEOUT_S ?? 300) * 1000;
const versions = wantedVersions(JSON.parse(packagesText));

/** How long anything may take that the machine does, however busy it is. */
const PATIENCE_MS = 30_000;

await mkdir(out, { recursive: true });
for (const left of ["failure.png", "failure.txt"]) await rm(join(out, left), { force: true });
const profile = await mkdtemp(join(tmpdir(), "rackhand-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1440, height: 900 },
  locale: "en-GB",
  // What turns looks different each time, and its colours are half transparent in between.
  reducedMotion: "reduce",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(PATIENCE_MS);
page.setDefaultNavigationTimeout(PATIENCE_MS);

/** What the browser may complain about in this step: a refusal that is wanted. */
let expected;
const consoleErrors = [];
page.on("pageerror", (error) => consoleErrors.push(`uncaught in the page: ${error.message}`));
page.on("console", (message) => {
  // A 401 before sign-in is how the app finds out that no one is signed in.
  if (message.type() === "error" && !/status of 401/.test(message.text()) && !expected?.test(message.text())) consoleErrors.push(`console: ${message.text()}`);
});

let shots = 0;
let status = 0;
let at = "start";
let since = Date.now();
try {
  await run();
  if (consoleErrors.length > 0) throw new Error(`the page reported errors:\n  ${consoleErrors.join("\n  ")}`);
  console.log(`path: all steps held, ${shots} screenshots in ${out}`);
} catch (error) {
  status = 1;
  await page.screenshot({ path: join(out, "failure.png") }).catch(() => {});
  const text = [`path: FAILED at “${at}” after ${((Date.now() - since) / 1000).toFixed(1)} s (${page.url()})`, error?.stack ?? error, ...consoleErrors].join("\n");
  console.error(text);
  await writeFile(join(out, "failure.txt"), `${text}\n`).catch(() => {});
} finally {
  await context.close();
  await rm(profile, { recursive: true, force: true });
}
process.exit(status);

async function run() {
  await step("sign-in asks and returns to the wanted page", async () => {
    await page.goto(`${base}/servers`);
    await page.getByRole("heading", { name: "Sign in to Rackhand" }).waitFor();
    ok(page.url().includes("to="), "the wanted page is not kept in the address");
    await check("sign-in");
    await page.getByLabel("E-mail").fill(email);
    await page.getByLabel("Password").fill(`${password}-wrong`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").getByRole("link", { name: /invalid-credentials/ }).waitFor();
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Servers", exact: true }).waitFor();
    await page.getByRole("status", { name: "Updates: live" }).waitFor();
  });

  let serverCount = 0;
  await step("the fleet list filters by its address", async () => {
    if (process.env.SITE) await page.getByRole("combobox", { name: "Site" }).selectOption({ label: process.env.SITE });
    const rows = page.getByRole("checkbox", { name: /^Select (?!the )/ });
    await rows.first().waitFor();
    await uncut("fleet");
    await check("fleet");
    const wanted = await page.getByRole("combobox", { name: /^BMC/ }).getByRole("option").evaluateAll((options) => options.map((option) => option.value).find((value) => value !== ""));
    if (wanted) {
      await page.getByRole("combobox", { name: /^BMC/ }).selectOption(wanted);
      await page.waitForURL(new RegExp(`generation=${wanted}`));
      await page.reload();
      await rows.first().waitFor();
      ok((await page.getByRole("combobox", { name: /^BMC/ }).inputValue()) === wanted, "the filter did not survive a reload");
      await check("fleet-filtered", ["dark"]);
      await page.getByRole("button", { name: "Clear filter" }).click();
      await page.waitForURL((url) => !url.search.includes("generation"));
      await rows.first().waitFor();
    }
    await page.getByLabel("Search", { exact: true }).fill("no-such-server-anywhere");
    await page.getByRole("heading", { name: "No server matches this filter" }).waitFor();
    await check("fleet-empty", ["light"]);
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await rows.first().waitFor();
  });

  await step("a single key goes nowhere, however soon after the page was loaded", async () => {
    const press = (key, timeStamp) =>
      page.evaluate(
        ([pressed, at]) => {
          const event = new KeyboardEvent("keydown", { key: pressed, bubbles: true, cancelable: true });
          Object.defineProperty(event, "timeStamp", { value: at });
          document.body.dispatchEvent(event);
        },
        [key, timeStamp],
      );
    await press("e", 700);
    await drawn();
    ok(new URL(page.url()).pathname === "/servers", `a single key led to ${page.url()}`);
    await press("g", 900_000);
    await press("e", 900_500);
    await page.getByRole("heading", { name: "Executors", exact: true }).waitFor();
    await page.goBack();
  });

  await step("the keyboard selects a row", async () => {
    await page.getByRole("heading", { name: "Servers", exact: true }).click();
    await page.keyboard.press("j");
    await page.keyboard.press("x");
    await page.getByText(/^1 selected/).waitFor();
    await page.keyboard.press("x");
    await page.getByText("Nothing selected").waitFor();
  });

  await step("power is changed by a plan, for several servers", async () => {
    await page.getByRole("button", { name: /^Select all \d+ matching$/ }).click();
    await page.getByRole("button", { name: "Power…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Action").selectOption({ label: "Force off" });
    await dialog.getByText("unsaved data is lost").waitFor();
    await dialog.getByLabel("Reason").fill("Browser test: power");
    await check("power-dialog");
    await dialog.getByRole("button", { name: "Plan" }).click();
    await page.getByRole("button", { name: /^Approve: force off \d+ servers$/ }).waitFor();
    await page.getByText("unsaved data is lost").first().waitFor();
    await check("power-plan");
    await page.getByRole("button", { name: "Cancel job" }).click();
    await page.getByRole("dialog").getByLabel("Reason").fill("only looked at");
    await page.getByRole("dialog").getByRole("button", { name: "Cancel job" }).click();
    await page.getByRole("status").getByText(/^Cancelled by .+: only looked at/).first().waitFor();
    await page.getByRole("link", { name: "Servers", exact: true }).click();
  });

  await step("the selection says what it covers", async () => {
    const all = page.getByRole("button", { name: /^Select all \d+ matching$/ });
    const total = Number(/\d+/.exec((await all.innerText()).replace(/\s/g, " "))?.[0]);
    await all.click();
    await page.getByText(new RegExp(`^${total} selected`)).waitFor();
    await check("fleet-selected");
    serverCount = total;
    await page.getByRole("button", { name: new RegExp(`^Update firmware on ${total} server`) }).click();
  });

  await step("a firmware job is prepared", async () => {
    await page.getByRole("heading", { name: "Update firmware" }).waitFor();
    await page.getByRole("button", { name: "Paste a list…" }).click();
    await page.getByRole("region", { name: "Example of a list of packages" }).getByText("software_id").waitFor();
    await check("paste-packages", ["light"]);
    await page.getByLabel("List of packages as JSON").fill(packagesText);
    await page.getByRole("button", { name: "Use this list" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.getByLabel("Reason").fill("Browser test: the whole path");
    // The form behind is ready to be sent: a list fills it and does nothing else.
    await quiet(async () => {
      await page.getByRole("button", { name: "Paste a list…" }).click();
      await page.getByRole("button", { name: "Use this list" }).click();
      await page.getByRole("dialog").waitFor({ state: "detached" });
      await page.getByRole("heading", { name: "Update firmware" }).waitFor();
    });
    await check("new-job");
  });

  await step("a session that ends keeps what was typed", async () => {
    const wanted = page.url();
    await context.clearCookies();
    // Something that reads meanwhile may find out first, and the button is gone.
    await Promise.race([page.getByRole("button", { name: "Make the plan" }).click().catch(() => {}), page.getByRole("heading", { name: "Sign in to Rackhand" }).waitFor()]);
    await page.getByRole("heading", { name: "Sign in to Rackhand" }).waitFor();
    await page.getByLabel("E-mail").fill(email);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Update firmware" }).waitFor();
    await eventually(() => page.url() === wanted, "another page came back");
    ok((await page.getByLabel("Reason").inputValue()) === "Browser test: the whole path", "the reason is gone");
    ok((await page.getByLabel(/^Version/).first().inputValue()) !== "", "the packages are gone");
    await page.getByRole("button", { name: "Make the plan" }).click();
  });

  let changes = 0;
  await step("the plan is read", async () => {
    await page.getByRole("heading", { name: "What will happen" }).waitFor();
    const plan = page.getByRole("table", { name: "Plan" });
    await eventually(async () => (await plan.getByRole("row").count()) === serverCount + 1, `the plan does not list ${serverCount} servers`);
    changes = await plan.getByRole("cell").filter({ hasText: "→" }).count();
    ok(changes > 0, "the plan changes nothing, so this test would prove nothing");
    await uncut("plan");
    await check("plan");
  });

  await step("the plan is approved", async () => {
    await page.getByRole("button", { name: /^Approve: update \d+ server/ }).click();
    await page.getByRole("list", { name: "Runs by state" }).waitFor();
  });

  const first = { name: "", id: "" };
  await step("the job is watched to its end", async () => {
    const lanes = page.getByRole("region", { name: "Runs, scrollable" }).getByRole("link");
    await lanes.first().waitFor();
    await lanes.first().click();
    await page.getByRole("log").waitFor();
    await check("job-running");
    const counters = page.getByRole("list", { name: "Runs by state" }).getByRole("listitem");
    const end = Date.now() + jobTimeout;
    for (;;) {
      const texts = (await counters.allInnerTexts()).map((text) => text.replace(/\s+/g, " ").trim());
      const bad = texts.find((text) => /failed|unknown|cancelled/.test(text));
      if (bad) throw new Error(`runs did not succeed: ${texts.join(", ")}\n${(await lanes.allInnerTexts()).join("\n")}`);
      if (texts.length > 0 && texts.every((text) => /succeeded|no change/.test(text))) break;
      if (Date.now() > end) throw new Error(`the job did not end in ${jobTimeout / 1000} s: ${texts.join(", ")}\n${(await lanes.allInnerTexts()).join("\n")}`);
      await page.waitForTimeout(250);
    }
    const states = () => lanes.evaluateAll((links) => links.map((link) => link.getAttribute("aria-label") ?? ""));
    const done = (labels) => labels.length > 0 && labels.every((label) => /: (succeeded|no change)$/.test(label));
    await eventually(async () => done(await states()), async () => `a lane says otherwise: ${(await states()).join("; ")}`);
    await page.getByText("succeeded").first().waitFor();
    await check("job-done");
  });

  await step("each log line has an address", async () => {
    const log = page.getByRole("log");
    await log.getByRole("link", { name: /^Link to line/ }).first().click();
    await page.waitForURL(/line=/);
    await page.reload();
    await page.getByRole("log").getByRole("link").first().waitFor();
  });

  await step("above an open run a narrow screen still has rows of the list", async () => {
    for (const width of [820, 390]) {
      await page.setViewportSize({ width, height: 844 });
      await drawn();
      const list = await page.getByRole("region", { name: "Runs, scrollable" }).evaluate((box) => ({ high: box.clientHeight, all: box.scrollHeight }));
      ok(list.high >= Math.min(list.all, 3 * 54), `at ${width} px the list of runs is ${list.high} px high`);
      await check(`run-${width}`, ["light"]);
    }
    await page.setViewportSize({ width: 1440, height: 900 });
  });

  await step("a run that is opened on a low screen comes into view", async () => {
    for (const size of [
      { width: 844, height: 390 },
      { width: 720, height: 450 },
    ]) {
      await page.setViewportSize(size);
      await page.getByRole("link", { name: "Hide this panel" }).click();
      await page.getByRole("region", { name: "Runs, scrollable" }).getByRole("link").first().click();
      const heading = page.getByRole("region", { name: /^Run on / }).getByRole("heading", { level: 2 });
      await heading.waitFor();
      await drawn();
      const box = await heading.boundingBox();
      ok(box !== null && box.y >= 0 && box.y + box.height <= size.height, `at ${size.width}×${size.height} the opened run is at ${box?.y} px`);
      await check(`run-${size.width}x${size.height}`, ["light"]);
    }
    await page.setViewportSize({ width: 1440, height: 900 });
  });

  await step("a run that failed says why first, with whole versions, and no phase of it goes on", async () => {
    const id = new URL(page.url()).pathname.split("/").at(-1);
    const open = new URL(page.url()).searchParams.get("run");
    const read = (path) => page.evaluate(async (which) => (await fetch(which, { headers: { "X-Rackhand-Client": "browser" } })).json(), path);
    const [runs, detail] = [await read(`/v1/jobs/${id}/runs`), await read(`/v1/runs/${open}`)];
    const cause = "The credential lab-root is suspended after two rejections by BMCs: seal a new version of it";
    const states = [
      { state: "failed", phase: "read", reason: "credential-suspended", detail: `${cause}.` },
      { state: "running", phase: "flash", reason: "device_job", detail: "Installing BIOS 2.13.0 → 2.19.1", percent: 26 },
    ];
    const items = runs.items.map((run, index) => ({ ...run, ...states[Number(run.id !== open && index % 2 === 1)], ...(run.id === open ? states[0] : {}) }));
    const phases = detail.phases.map((phase, index) => (index === detail.phases.length - 1 ? { ...phase, state: "running", finished_at: null } : phase));
    await page.route((url) => url.pathname === `/v1/runs/${open}`, (route) => route.fulfill({ json: { ...detail, ...states[0], phases } }));
    await answering(`/v1/jobs/${id}/runs`, { ...runs, items }, async () => {
      const panel = page.getByRole("region", { name: /^Run on / });
      const last = panel.getByRole("list", { name: "Phases" }).getByRole("listitem").last();
      await last.getByText("ended with the run").waitFor();
      const before = await last.innerText();
      await page.waitForTimeout(1500);
      ok((await last.innerText()) === before, "the time of a phase goes on after the end of its run");
      const lanes = page.getByRole("region", { name: "Runs, scrollable" }).getByRole("link");
      for (const width of [1440, 820, 390]) {
        await page.setViewportSize({ width, height: 844 });
        await drawn();
        const cuts = await lanes.evaluateAll((links) =>
          links.flatMap((link) => [...link.querySelectorAll("p:first-child")]).filter((words) => words.scrollHeight > words.clientHeight + 1 || words.scrollWidth > words.clientWidth + 1).map((words) => words.innerText),
        );
        ok(cuts.length === 0, `at ${width} px a cause is cut: ${cuts.join(" | ")}`);
        ok((await lanes.filter({ hasText: cause }).first().getByRole("paragraph").first().innerText()) === cause, "the cause is not the first that is said");
        await check(`run-failed-${width}`, width === 1440 ? ["light", "dark"] : ["light"]);
      }
      await page.setViewportSize({ width: 1440, height: 900 });
    });
  });

  await step("a job that paused says why, and what can be done", async () => {
    const id = new URL(page.url()).pathname.split("/").at(-1);
    const job = await page.evaluate(async (which) => (await fetch(`/v1/jobs/${which}`, { headers: { "X-Rackhand-Client": "browser" } })).json(), id);
    await answering(`/v1/jobs/${id}`, { ...job, state: "paused", state_reason: "Paused automatically after 3 failures", runs: { failed: 3, queued: 2 } }, async () => {
      await page.getByRole("status").getByText("Paused automatically after 3 failures. 2 queued runs wait until someone resumes or cancels the job.").waitFor();
      await page.getByRole("button", { name: "Resume" }).waitFor();
      await page.getByRole("button", { name: "Cancel job" }).waitFor();
      await check("job-paused");
    });
  });

  await step("a run that an executor works on says why it cannot be closed", async () => {
    const id = new URL(page.url()).pathname.split("/").at(-1);
    const open = new URL(page.url()).searchParams.get("run");
    const [runs, executors] = await page.evaluate(
      async (paths) => Promise.all(paths.map(async (path) => (await fetch(path, { headers: { "X-Rackhand-Client": "browser" } })).json())),
      [`/v1/jobs/${id}/runs`, "/v1/executors"],
    );
    const executor = executors.items.find((item) => item.online);
    const held = runs.items.map((run) => (run.id === open ? { ...run, state: "running", percent: 26, executor: executor.id, executor_name: executor.name } : run));
    await answering(`/v1/jobs/${id}/runs`, { ...runs, items: held }, async () => {
      const panel = page.getByRole("region", { name: /^Run on / });
      await panel.getByText(`Executor ${executor.name} works on this run.`).waitFor();
      await page.setViewportSize({ width: 390, height: 844 });
      await drawn();
      ok(await panel.getByRole("heading").getByRole("link").evaluate((link) => link.scrollWidth <= link.clientWidth + 1), "the name of the run's server is cut");
      await check("run-held", ["light"]);
      await page.setViewportSize({ width: 1440, height: 900 });
    });
  });

  await step("the server page shows the new version", async () => {
    const plan = page.getByRole("navigation", { name: "Views of the job" }).getByRole("link", { name: "Plan" });
    await plan.click();
    const changed = page.getByRole("table", { name: "Plan" }).getByRole("row").filter({ hasText: "→" }).first();
    first.name = (await changed.getByRole("cell").first().innerText()).trim();
    await check("plan-approved", ["dark"]);
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    await page.getByLabel("Search", { exact: true }).fill(first.name);
    await page.getByRole("link", { name: first.name, exact: true }).click();
    await page.getByRole("heading", { name: first.name, exact: true }).waitFor();
    const table = page.getByRole("table", { name: "Installed firmware" });
    await table.getByRole("columnheader", { name: "Component id" }).waitFor();
    const cells = table.getByRole("cell").filter({ hasText: new RegExp(`^(${Object.values(versions).map(escape).join("|")})$`) });
    await cells.first().waitFor();
    // People and credentials by their names, never by an id.
    const endpoint = page.getByRole("region", { name: "BMC endpoint" });
    await endpoint.getByText(/^lab-root, version \d+$/).waitFor();
    await endpoint.getByText(/^executor-\d$/).waitFor();
    await uncut("server");
    await check("server");
  });

  await step("a server says why its latest run failed, and its credential can be tried again", async () => {
    const id = new URL(page.url()).pathname.split("/").at(-1);
    const server = await page.evaluate(async (target) => (await fetch(`/v1/servers/${target}`, { headers: { "X-Rackhand-Client": "browser" } })).json(), id);
    const last_failure = { run_id: id, job_id: id, at: new Date(Date.now() - 60_000).toISOString(), code: "bmc-auth-failed", detail: `${server.name}: the BMC refuses user or password` };
    await answering(`/v1/servers/${id}`, { ...server, last_failure }, async () => {
      await page.getByRole("status").getByText("the BMC refuses user or password").waitFor();
      await check("server-failed");
      await page.getByRole("button", { name: "Let it be tried again…" }).click();
      await check("try-again");
      await page.getByRole("dialog").getByRole("button", { name: "Let it be tried again" }).click();
      await page.getByRole("dialog").getByRole("status").getByText("nothing was changed").waitFor();
      ok(await page.getByRole("dialog").evaluate((popup) => popup.contains(document.activeElement)), "the focus left the dialog with its button");
      await check("tried-again");
      await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
      await page.getByRole("dialog").waitFor({ state: "detached" });
      await answering(`/v1/servers/${id}/credential/try-again`, { changed: true, suspended: null }, async () => {
        await page.getByRole("button", { name: "Let it be tried again…" }).click();
        await page.getByRole("dialog").getByRole("button", { name: "Let it be tried again" }).click();
        await page.getByRole("dialog").getByRole("status").getByText("Read its inventory").waitFor();
        await check("tried-again-changed");
        await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
        await page.getByRole("dialog").waitFor({ state: "detached" });
      });
    });
    await page.getByRole("region", { name: "BMC endpoint" }).getByText(/^lab-root, version \d+$/).waitFor();
    await none(page.getByRole("button", { name: "Let it be tried again…" }), "it is offered where nothing failed");
  });

  await step("the list of servers shows whose latest run failed, and leads there", async () => {
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    const list = await page.evaluate(async () => (await fetch("/v1/servers", { headers: { "X-Rackhand-Client": "browser" } })).json());
    const [server] = list.items;
    const last_failure = { run_id: server.id, job_id: server.id, at: new Date(Date.now() - 60_000).toISOString(), code: "bmc-auth-failed", detail: `${server.name}: the BMC refuses user or password` };
    await answering("/v1/servers", { ...list, items: [{ ...server, last_failure }, ...list.items.slice(1)] }, async () => {
      const failure = page.getByRole("link", { name: /^Last failure: bmc-auth-failed 1 min/ });
      await failure.waitFor();
      ok(new RegExp(`/jobs/${server.id}\\?.*run=`).test((await failure.getAttribute("href")) ?? ""), "the failure does not lead to its run");
      await uncut("fleet-failed");
      await check("fleet-failed");
    });
  });

  await step("the lists show it too", async () => {
    await page.getByRole("link", { name: "Jobs", exact: true }).click();
    await page.getByRole("table", { name: "Jobs" }).getByRole("row").filter({ hasText: "Browser test: the whole path" }).filter({ hasText: "succeeded" }).first().waitFor();
    await uncut("jobs");
    await check("jobs");
    await page.getByRole("link", { name: "Executors", exact: true }).click();
    await page.getByRole("table", { name: "Executors" }).getByText("online").first().waitFor();
    await uncut("executors");
    await check("executors");
  });

  await events(first.name);
  await sites();
  await closing(first.name);
  await credentials();
  await adding();
  await roles();
  await people();
  await themes();
  await outage();
  await narrow();
}

async function outage() {
  await step("a page that cannot be loaded while the control plane does not answer leaves the others", async () => {
    expected = /ERR_FAILED|The control plane does not answer/;
    await page.route((url) => url.pathname.startsWith("/assets/Jobs-") || url.pathname === "/v1/health", (route) => route.abort());
    await page.reload();
    await page.getByLabel("Theme").waitFor();
    await page.evaluate(() => (window.same = true));
    await page.getByRole("link", { name: "Jobs", exact: true }).click();
    await page.getByRole("heading", { name: "This page cannot be loaded now" }).waitFor();
    await page.getByRole("alert").getByText("The control plane does not answer.").waitFor();
    await check("page-not-loaded");
    ok(await page.evaluate(() => window.same), "the document was loaded again");
    await page.unrouteAll({ behavior: "ignoreErrors" });
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("table", { name: "Jobs" }).waitFor();
    expected = undefined;
  });
}

async function narrow() {
  await step("a narrow screen shows each job with its state", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await page.getByRole("link", { name: "Jobs", exact: true }).click();
    const row = page.getByRole("table", { name: "Jobs" }).getByRole("row").filter({ hasText: "Browser test: the whole path" }).first();
    const state = await row.getByText("succeeded").first().boundingBox();
    ok(state !== null && state.x >= 0 && state.x + state.width <= 390, "the state is off the screen");
    await check("jobs-narrow");
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    await page.getByRole("checkbox", { name: /^Select (?!the )/ }).first().waitFor();
    await check("fleet-narrow", ["dark"]);
    for (const name of ["Events", "Sites", "Credentials"]) {
      await page.getByRole("link", { name, exact: true }).click();
      await page.getByRole("heading", { name, exact: true }).waitFor();
      await page.getByRole("main").getByText("lab", { exact: false }).first().waitFor();
      ok(await page.getByRole("main").evaluate((main) => main.scrollWidth <= main.clientWidth), `${name} is wider than the screen`);
      if (name === "Sites") {
        for (const part of [page.getByText("whoever planned a job may approve it"), page.getByText("compared in this browser"), page.getByRole("button", { name: /^Enrol/ })]) {
          const box = await part.boundingBox();
          ok(box !== null && box.x + box.width <= 390, "a part of the site is off the screen");
        }
      }
      await check(`${name.toLowerCase()}-narrow`, ["light"]);
    }
    await page.setViewportSize({ width: 1440, height: 900 });
  });
}

async function events(name) {
  await step("events are listed, the newest first, and come as they happen", async () => {
    await page.getByRole("link", { name: "Events", exact: true }).click();
    await page.getByRole("heading", { name: "Events", exact: true }).waitFor();
    const list = page.getByRole("region", { name: "Events, scrollable" });
    const rows = list.getByRole("listitem");
    await rows.first().waitFor();
    // Two events of one moment may have been stored in either order; over all the list goes back in time.
    await eventually(async () => (await rows.count()) > 10, "there are hardly any events");
    const times = await list.getByRole("time").evaluateAll((all) => all.map((time) => Date.parse(time.dateTime)));
    ok(times.every((time, index) => index === 0 || time <= times[index - 1] + 30_000), "the newest is not at the top");
    ok(times[0] > times.at(-1), "the oldest is at the top");
    await none(list.getByText("run.log", { exact: true }), "log lines are shown without being requested");
    await uncut("events");
    await check("events");
    await page.getByLabel("With the lines of the runs' logs").check();
    await list.getByText("run.log", { exact: true }).first().waitFor();
    await page.getByLabel("With the lines of the runs' logs").uncheck();
    await page.getByRole("combobox", { name: "Server", exact: true }).fill("no-such-server");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("No server matches.").waitFor();
    await page.getByRole("combobox", { name: "Server", exact: true }).fill(name);
    await page.keyboard.press("Enter");
    await page.waitForURL(/server=/);
    await page.getByText(`Server: ${name}`).waitFor();
    await list.getByRole("link", { name: /^Run of/ }).first().waitFor();
    const shown = async () => new Set(await list.getByRole("link", { name: /^Server of/ }).evaluateAll((links) => links.map((link) => link.getAttribute("href")))).size;
    await eventually(async () => (await shown()) === 1, async () => `the filter shows the events of ${await shown()} servers`);
    const before = await rows.count();
    // Something happens to that server, requested from elsewhere.
    const id = new URL(page.url()).searchParams.get("server");
    const answer = await page.evaluate(async (target) => {
      const headers = { "X-Rackhand-Client": "browser", "Content-Type": "application/json" };
      const server = await (await fetch(`/v1/servers/${target}`, { headers })).json();
      const policy = { max_parallel: 1, pause_after_failures: 0, start_after: null };
      const job = { site_id: server.site_id, kind: "inventory", params: {}, targets: [target], policy, reason: "Browser test: live events" };
      return (await fetch("/v1/jobs", { method: "POST", headers: { ...headers, "Idempotency-Key": crypto.randomUUID() }, body: JSON.stringify(job) })).status;
    }, id);
    ok(answer === 201 || answer === 200, `the inventory was not started: ${answer}`);
    await eventually(async () => (await rows.count()) > before, "no event came");
    await page.getByRole("button", { name: "Show the events of all servers" }).click();
    await page.waitForURL((url) => !url.search.includes("server="));
  });
}

async function sites() {
  await step("a site shows its key, which is compared with what an executor prints", async () => {
    await page.getByRole("link", { name: "Sites", exact: true }).click();
    await page.getByRole("heading", { name: "Sites", exact: true }).waitFor();
    await page.getByRole("table", { name: /^Executors of/ }).getByText("online").first().waitFor();
    await page.getByText("not compared in this browser").waitFor();
    await uncut("sites");
    await check("sites");
    const key = /[A-Za-z0-9+/]{43}=/.exec(await page.getByRole("main").innerText())?.[0] ?? "";
    await page.getByRole("button", { name: /^Compare the key/ }).click();
    const dialog = page.getByRole("dialog");
    const typed = dialog.getByLabel("What the executor printed");
    await typed.fill(`Key: ${Buffer.alloc(32, 7).toString("base64")}`);
    await dialog.getByText("someone may be in the middle").waitFor();
    ok((await dialog.getByRole("button", { name: "They match" }).getAttribute("aria-disabled")) === "true", "another key can be accepted");
    await check("site-key-differs", ["dark"]);
    await typed.fill(`Key: ${key}`);
    await dialog.getByText("The same key").waitFor();
    await dialog.getByRole("button", { name: "They match" }).click();
    await page.getByText(/^compared in this browser/).waitFor();
    await page.reload();
    await page.getByText(/^compared in this browser/).waitFor();
  });

  await step("an executor is invited with a token that is shown once", async () => {
    await page.getByRole("button", { name: /^Enrol an executor/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Make a token" }).click();
    await page.getByLabel("Enrolment token", { exact: true }).waitFor();
    ok((await page.getByLabel("Command that enrols the executor", { exact: true }).innerText()).includes(`--server ${base}`), "the command names another server");
    await check("enrolment-token", ["light"]);
    await page.getByRole("button", { name: "Hide the token" }).click();
    await none(page.getByLabel("Enrolment token", { exact: true }), "the token is still shown");
  });

  await step("settings of a site are checked beside their fields", async () => {
    await page.getByRole("button", { name: /^Settings/ }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Changing runs at once, at most").fill("0");
    await dialog.getByText("1 to 10000 runs").waitFor();
    await dialog.getByLabel("Changing runs at once, at most").fill("12");
    await dialog.getByRole("button", { name: "Save" }).click();
    await page.getByText("at most 12 at once").waitFor();
  });
}

async function closing(name) {
  await step("a run that nobody works on is closed, with a reason", async () => {
    await page.getByRole("link", { name: "Sites", exact: true }).click();
    await page.getByRole("button", { name: /^Pause hardware operations/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Pause" }).click();
    await page.getByText("hardware paused", { exact: true }).waitFor();
    await page.getByRole("status").getByText(/\(by .+ since \d{4}-\d\d-\d\d at \d\d:\d\d UTC\)/).waitFor();
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    await page.getByLabel("Search", { exact: true }).fill(name);
    await page.getByRole("link", { name, exact: true }).click();
    await page.getByRole("button", { name: "Power…" }).click();
    let dialog = page.getByRole("dialog");
    await dialog.getByLabel("Action").selectOption({ label: "Force restart" });
    await dialog.getByLabel("Reason").fill("Browser test: a run to close");
    await dialog.getByRole("button", { name: "Plan" }).click();
    await page.getByRole("button", { name: /^Approve: force restart/ }).click();
    await page.getByRole("region", { name: "Runs, scrollable" }).getByRole("link").first().click();
    await page.getByRole("button", { name: "Close run…" }).click();
    dialog = page.getByRole("dialog", { name: `Close the run on ${name}` });
    ok((await dialog.getByRole("button", { name: "Close run" }).getAttribute("aria-disabled")) === "true", "a run can be closed without a reason");
    await dialog.getByLabel("Reason").fill("the executor is gone");
    await check("close-run");
    // The focus stays inside, and Escape gives it back.
    for (let press = 0; press < 8; press += 1) {
      await page.keyboard.press("Tab");
      // At its end the dialog takes the focus back with the next frame.
      await eventually(() => dialog.evaluate((popup) => popup.contains(document.activeElement)), "the focus left the dialog");
    }
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    await eventually(() => page.getByRole("button", { name: "Close run…" }).evaluate((button) => button === document.activeElement), "the focus is not back on the button");
    await page.getByRole("button", { name: "Close run…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Close run" }).click();
    await page.getByText(/Closed by .*: the executor is gone/).first().waitFor();
    await check("run-closed", ["light"]);
    // One that had announced a change would have ended with an unknown outcome: it is closed all the same, and only once.
    const id = new URL(page.url()).pathname.split("/").at(-1);
    const runs = await page.evaluate(async (which) => (await fetch(`/v1/jobs/${which}/runs`, { headers: { "X-Rackhand-Client": "browser" } })).json(), id);
    const unknown = runs.items.map((run) => ({ ...run, state: "unknown", reason: "outcome-unknown" }));
    await answering(`/v1/jobs/${id}/runs`, { ...runs, items: unknown }, async () => {
      const panel = page.getByRole("region", { name: /^Run on / });
      await panel.getByText(/^Closed by [^:]+, /).waitFor();
      await none(panel.getByRole("button", { name: "Close run…" }), "a closed run can be closed again");
      await check("run-closed-unknown", ["light"]);
    });
    await page.getByRole("link", { name: "Sites", exact: true }).click();
    await page.getByRole("button", { name: /^Resume hardware operations/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
    await page.getByText("hardware active", { exact: true }).waitFor();
  });
}

async function credentials() {
  await step("credentials are listed; setting one shows the command, and no page takes a password", async () => {
    await page.getByRole("link", { name: "Credentials", exact: true }).click();
    const table = page.getByRole("table", { name: "Credentials" });
    await table.getByText("active").first().waitFor();
    await uncut("credentials");
    await table.getByText(/^\d+ BMC addresses$/).first().click();
    await table.getByRole("listitem").filter({ hasText: /^https:\/\// }).first().waitFor();
    await check("credentials");
    await page.getByRole("button", { name: "Set a credential" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name", { exact: true }).fill("rack 7");
    await dialog.getByLabel("Account on the BMCs").fill("root");
    const command = dialog.getByLabel("Command that seals the password", { exact: true });
    const text = await command.innerText();
    ok(/^rackhand credentials set 'rack 7' --site \S+ --user root/.test(text) && text.includes("--site-key KEY"), `not the command: ${text}`);
    ok((await dialog.locator("input[type=password]").count()) === 0, "the dialog takes a password");
    await dialog.getByLabel("Key of the site, as an executor prints it").fill(Buffer.alloc(32, 7).toString("base64"));
    await dialog.getByText("someone may be in the middle").waitFor();
    ok((await command.innerText()).includes("--site-key KEY"), "a wrong key got into the command");
    await check("credential-command");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    // A site without a key is not what it begins with; nothing is wrong before anything was typed.
    const sites = await page.evaluate(async () => (await fetch("/v1/sites", { headers: { "X-Rackhand-Client": "browser" } })).json());
    const keyless = { ...sites.items[0], id: sites.items[0].id.replace(/.$/, (digit) => (digit === "0" ? "1" : "0")), name: "aaa", public_key: null };
    await answering("/v1/sites", { ...sites, items: [keyless, ...sites.items] }, async () => {
      await page.getByRole("button", { name: "Set a credential" }).click();
      ok((await dialog.getByRole("combobox", { name: "Site" }).inputValue()) !== keyless.id, "it begins with a site that has no key");
      await dialog.getByRole("combobox", { name: "Site" }).selectOption({ label: "aaa" });
      await dialog.getByText("This site has no key yet").waitFor();
      ok((await dialog.locator("[aria-invalid=true]").count()) === 0, "something is wrong before anything was typed");
      await page.keyboard.press("Escape");
    });
    await answering("/v1/credentials", { items: [], next: null }, async () => {
      await page.getByRole("heading", { name: "No credential yet" }).waitFor();
      await check("credentials-empty", ["light"]);
    });
    await table.getByText("active").first().waitFor();
  });
}

async function adding() {
  await step("servers are added from a list; what is wrong stands beside its field", async () => {
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    const taken = (await page.getByRole("checkbox", { name: /^Select (?!the )/ }).first().getAttribute("aria-label"))?.replace(/^Select /, "") ?? "";
    await page.getByRole("link", { name: "Add servers" }).click();
    await page.getByRole("heading", { name: "Add servers" }).waitFor();
    const name = `added-${Date.now() % 100000}`;
    const list = [
      { name, bmc_url: "https://192.0.2.17", spki_sha256: "ab".repeat(32), tags: ["browser"] },
      { name: taken, bmc_url: "https://192.0.2.18", spki_sha256: "CD".repeat(32) },
    ];
    await page.getByRole("button", { name: "Paste a list…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("region", { name: "Example of a list of servers" }).getByText("bmc_url").waitFor();
    await check("paste-servers", ["light"]);
    await dialog.getByLabel("List of servers as JSON").fill("[4]");
    await dialog.getByRole("button", { name: "Use this list" }).click();
    await dialog.getByRole("alert").getByText("Entry 1 is not an object.").waitFor();
    await dialog.getByLabel("List of servers as JSON").fill(JSON.stringify(list));
    await dialog.getByRole("button", { name: "Use this list" }).click();
    const second = page.getByRole("group", { name: taken, exact: true });
    await second.getByText(/^64 lower-case hex digits/).waitFor();
    await page.getByRole("button", { name: "Add 2 servers" }).click();
    await page.getByRole("alert").getByText("Some fields are not valid yet.").waitFor();
    await check("add-servers-invalid", ["light"]);
    await second.getByLabel("TLS key (SHA-256)").fill("cd".repeat(32));
    await page.getByRole("button", { name: "Add 2 servers" }).click();
    await page.getByRole("alert").getByText("Confirm that you compared the certificates.").waitFor();
    await page.getByLabel("I compared the certificate of each BMC with what the BMC itself shows").check();
    await quiet(async () => {
      await page.getByRole("button", { name: "Paste a list…" }).click();
      await dialog.getByLabel("List of servers as JSON").fill(JSON.stringify(list.map((row) => ({ ...row, spki_sha256: row.spki_sha256.toLowerCase() }))));
      await page.getByRole("button", { name: "Use this list" }).click();
      await dialog.waitFor({ state: "detached" });
    });
    ok(!(await page.getByLabel("I compared the certificate of each BMC with what the BMC itself shows").isChecked()), "another list counts as compared");
    await page.getByLabel("I compared the certificate of each BMC with what the BMC itself shows").check();
    await page.reload();
    ok((await second.getByLabel("BMC address").inputValue()) === "https://192.0.2.18", "a reload took what was typed");
    await page.getByRole("button", { name: "Add 2 servers" }).click();
    await page.getByRole("status", { name: "Added servers" }).getByRole("link", { name, exact: true }).waitFor();
    await second.getByText(/has a server of this name already/).waitFor();
    await second.getByText("It was not changed. To change it, choose below to replace it.").waitFor();
    await check("add-servers-partly");
    await second.getByLabel("Name", { exact: true }).fill(`${name}-b`);
    await page.getByRole("group", { name: `${name}-b` }).getByLabel("BMC address").fill("https://192.0.2.17");
    await page.getByRole("button", { name: "Add 1 server" }).click();
    await page.getByText(new RegExp(`The BMC at https://192\\.0\\.2\\.17.* is the one of server ${name}`)).waitFor();
    await page.getByRole("group", { name: `${name}-b` }).getByLabel("Name", { exact: true }).fill(name);
    const moved = page.getByRole("group", { name, exact: true });
    await moved.getByLabel("BMC address").fill("https://192.0.2.19");
    await page.getByRole("button", { name: "Add 1 server" }).click();
    await moved.getByText(`${name} is registered at https://192.0.2.17, not at https://192.0.2.19`).waitFor();
    await page.getByLabel(/^Replace servers that are registered/).check();
    await page.getByRole("button", { name: "Add 1 server" }).click();
    await moved.getByText(/has a server of this name already/).waitFor({ state: "detached" });
    await uncut("add-servers");
    await page.getByRole("status", { name: "Added servers" }).getByRole("link", { name, exact: true }).first().click();
    await page.getByRole("heading", { name, exact: true }).waitFor();
    await page.getByText("https://192.0.2.19", { exact: true }).first().waitFor();
    const answer = await page.evaluate(async (id) => (await fetch(`/v1/servers/${id}`, { method: "DELETE", headers: { "X-Rackhand-Client": "browser" } })).status, new URL(page.url()).pathname.split("/").at(-1));
    ok(answer === 204, `the added server was not removed again: ${answer}`);
  });
}

async function roles() {
  await step("what a role does not allow is disabled, with the reason", async () => {
    await page.getByRole("link", { name: "Sites", exact: true }).click();
    const me = await page.evaluate(async () => (await fetch("/v1/auth/me", { headers: { "X-Rackhand-Client": "browser" } })).json());
    await answering("/v1/auth/me", { ...me, grants: [{ id: me.grants[0].id, role: "viewer", site_id: null }] }, async () => {
      for (const name of [/^Pause hardware operations/, /^Settings/, /^Enrol an executor/, /^Add a site/]) {
        const button = page.getByRole("button", { name });
        await button.waitFor();
        ok((await button.getAttribute("aria-disabled")) === "true", `a viewer may use ${name}`);
        ok(/Requires the role admin/.test((await button.getAttribute("title")) ?? ""), `${name} gives no reason`);
      }
      await check("sites-viewer", ["dark"]);
      await page.getByRole("link", { name: "Credentials", exact: true }).click();
      ok((await page.getByRole("button", { name: "Set a credential" }).getAttribute("aria-disabled")) === "true", "a viewer may set a credential");
      await page.getByRole("link", { name: "People", exact: true }).click();
      for (const name of ["Add a person", /^Grant a role/, /^Remove the role/, /^Disable/]) {
        const button = page.getByRole("button", { name });
        await button.waitFor();
        ok(/Requires the role admin of the whole fleet/.test((await button.getAttribute("title")) ?? ""), `a viewer may use ${name}`);
        // Not only the mouse gets to know why.
        await button.focus();
        const shown = page.locator("body > [aria-hidden=true]").getByText("Requires the role admin of the whole fleet");
        await shown.waitFor();
        await page.keyboard.press("Escape");
        await shown.waitFor({ state: "detached" });
      }
      ok((await page.getByRole("main").getByRole("button", { name: "Change password…" }).getAttribute("aria-disabled")) === null, "a viewer cannot change the own password");
      await check("people-viewer", ["light"]);
      await page.getByRole("link", { name: "Executors", exact: true }).click();
      const revoke = page.getByRole("button", { name: /^Revoke…/ }).first();
      await revoke.waitFor();
      ok(/Requires the role admin in/.test((await revoke.getAttribute("title")) ?? ""), "a viewer may revoke an executor");
      await page.getByRole("link", { name: "Servers", exact: true }).click();
      const add = page.getByRole("button", { name: "Add servers" });
      await add.waitFor();
      ok(/Requires the role operator/.test((await add.getAttribute("title")) ?? ""), "a viewer is offered to add servers");
      for (const name of ["Read inventory", "Power…", "Boot from…", "Update firmware"]) {
        ok(/Requires the role operator/.test((await page.getByRole("button", { name }).getAttribute("title")) ?? ""), `${name} does not say what a viewer lacks`);
      }
      await page.getByRole("region", { name: "Selection" }).getByText("Requires the role operator").last().waitFor();
      await check("fleet-viewer");
      await page.getByRole("link", { name: "Sites", exact: true }).click();
    });
    await answering("/v1/sites", { items: [], next: null }, async () => {
      await page.getByRole("heading", { name: "No site yet" }).waitFor();
      await check("sites-empty", ["dark"]);
    });
    await page.getByRole("button", { name: /^Settings/ }).waitFor();
  });
}

async function themes() {
  await step("a theme is chosen and stays chosen", async () => {
    await page.emulateMedia({ colorScheme: "light" });
    await page.getByLabel("Theme").selectOption("dark");
    await eventually(async () => (await shownTheme()) === "dark", "the choice changes nothing");
    await page.reload();
    await page.getByLabel("Theme").waitFor();
    await eventually(async () => (await shownTheme()) === "dark", "the choice did not survive a reload");
    await page.getByLabel("Theme").selectOption("system");
    await eventually(async () => (await shownTheme()) === "light", "the system's theme does not come back");
  });
}

async function people() {
  const name = `Browser Colleague ${Date.now()}`;
  const address = `browser-${Date.now()}@rackhand.example`;
  const row = page.getByRole("row").filter({ hasText: name });
  const dialog = page.getByRole("dialog");
  const chosen = "sixteen-green-teapots";

  await step("a colleague is added, and chooses a password with a link", async () => {
    await page.getByRole("link", { name: "People", exact: true }).click();
    await page.getByRole("button", { name: "Add a person" }).click();
    await dialog.getByLabel("E-mail").fill(address);
    ok(/Give a name/.test((await dialog.getByRole("button", { name: "Add a person" }).getAttribute("title")) ?? ""), "the button does not say what is missing");
    await dialog.getByLabel("Name", { exact: true }).fill(name);
    ok((await dialog.locator("input[type=password]").count()) === 0, "an admin types the password of someone else");
    await check("person-dialog", ["light"]);
    await dialog.getByRole("button", { name: "Add a person" }).click();
    await row.getByText("no role yet").waitFor();
    const link = await page.getByLabel("One-time link", { exact: true }).locator("visible=true").last().innerText();
    ok(link.startsWith(`${base}/choose-password#`), "the link leads elsewhere");
    await check("people-link");
    await page.getByRole("button", { name: "Hide the link" }).click();
    await none(page.getByText(link), "the link is still shown");
    const other = await context.newPage();
    await other.goto(link.slice(0, -1));
    await other.getByText(/^This link is not whole/).waitFor();
    // In the same tab only what stands after the # changes.
    await other.goto(link);
    await other.getByText(new URL(base).host).waitFor();
    await other.getByLabel("New password").fill(chosen);
    await other.getByLabel("The same once more").fill(chosen);
    await other.getByRole("button", { name: "Choose" }).click();
    await other.getByText("Your password is set. Sign in with it.").waitFor();
    await other.close();
    ok((await signIn(address, chosen)) === 200, "the chosen password is refused");
  });

  await step("a role is granted where it was chosen, and removed only after a question", async () => {
    await row.getByRole("button", { name: /^Grant a role/ }).click();
    ok((await dialog.getByLabel("Where").inputValue()) === "", "a place is chosen already");
    ok((await dialog.getByRole("button", { name: "Grant" }).getAttribute("aria-disabled")) === "true", "a role can be granted without a place");
    await dialog.getByLabel("Role").selectOption("operator");
    await dialog.getByLabel("Where").selectOption({ label: "The whole fleet: every site, also later ones" });
    await check("grant-dialog");
    await dialog.getByRole("button", { name: "Grant" }).click();
    await row.getByText("operator of the whole fleet").waitFor();
    await uncut("people");
    await check("people");
    await row.getByRole("button", { name: /^Remove the role operator/ }).click();
    await dialog.getByText(/no longer operator of the whole fleet and has no role left/).waitFor();
    await check("remove-role-dialog", ["light"]);
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await dialog.waitFor({ state: "detached" });
    await row.getByText("operator of the whole fleet").waitFor();
    await row.getByRole("button", { name: /^Remove the role operator/ }).click();
    await dialog.getByRole("button", { name: "Remove the role" }).click();
    await row.getByText("no role yet").waitFor();
  });

  await step("a password is reset, sessions end, the account is disabled and enabled", async () => {
    await row.getByRole("button", { name: /^Password link…/ }).click();
    await dialog.getByText(/Until it is used the present password stays/).waitFor();
    await dialog.getByRole("button", { name: "Make a link" }).click();
    await page.getByRole("button", { name: "Hide the link" }).click();
    await row.getByRole("button", { name: /^End sessions…/ }).click();
    await dialog.getByRole("button", { name: "End sessions" }).click();
    await dialog.waitFor({ state: "detached" });
    await row.getByRole("button", { name: /^Disable…/ }).click();
    await dialog.getByText(/cannot sign in until someone enables them/).waitFor();
    await check("disable-dialog", ["light"]);
    await dialog.getByRole("button", { name: "Disable" }).click();
    await row.getByText("disabled", { exact: true }).waitFor();
    ok(/is disabled/.test((await row.getByRole("button", { name: /^Password link…/ }).getAttribute("title")) ?? ""), "a link is offered for a disabled account");
    ok((await signIn(address, chosen)) === 401, "a disabled account signs in");
    await row.getByRole("button", { name: /^Enable…/ }).click();
    await dialog.getByRole("button", { name: "Enable" }).click();
    await row.getByText("enabled", { exact: true }).waitFor();
    ok((await signIn(address, chosen)) === 200, "an enabled account cannot sign in");
    const own = page.getByRole("row").filter({ hasText: "(you)" });
    ok(/cannot disable yourself/.test((await own.getByRole("button", { name: /^Disable…/ }).getAttribute("title")) ?? ""), "one can disable oneself");
  });

  await step("one's own password is changed with the present one", async () => {
    expected = /status of 4\d\d/;
    const next = `${password}-and more of it`;
    const change = async (present, wanted) => {
      await dialog.getByLabel("Present password").fill(present);
      await dialog.getByLabel("New password").fill(wanted);
      await dialog.getByLabel("The same once more").fill(wanted);
      await dialog.getByRole("button", { name: "Change password" }).click();
    };
    await page.getByRole("navigation", { name: "Main" }).getByRole("button", { name: "Change password…" }).click();
    await change(`${password}-wrong`, next);
    await dialog.getByRole("alert").getByRole("link", { name: /password-wrong/ }).waitFor();
    await check("change-password", ["dark"]);
    await change(password, next);
    await dialog.waitFor({ state: "detached" });
    await page.getByRole("status").getByText("Changed; your other sessions have ended.").waitFor();
    ok((await signIn(email, next)) === 200, "the new password is refused");
    await page.getByRole("navigation", { name: "Main" }).getByRole("button", { name: "Change password…" }).click();
    await change(next, password);
    await dialog.waitFor({ state: "detached" });
  });

  await step("an executor is revoked, after its name was typed", async () => {
    await page.getByRole("link", { name: "Executors", exact: true }).click();
    const spare = `spare-${Date.now() % 100000}`;
    await enrol(spare);
    await page.reload();
    // How it is admitted; until then it is none of those that are online.
    await page.getByText(/^\d+ of \d+ online, 1 waits for confirmation$/).waitFor();
    await page.getByText(/^Until its fingerprint is confirmed it takes no work\. On the machine of executor-.* run rackhand-executor confirm --data DIR FINGERPRINT/).waitFor();
    await uncut("executor-joining");
    await check("executor-joining");
    await page.getByRole("button", { name: `Revoke… ${spare}` }).click();
    const send = dialog.getByRole("button", { name: "Revoke" });
    ok((await send.getAttribute("aria-disabled")) === "true", "it can be revoked by one click");
    await dialog.getByText(/another executor|It holds no run/).waitFor();
    await dialog.getByLabel("Name of the executor").fill(spare);
    await check("revoke-dialog", ["light"]);
    await send.click();
    await page.getByRole("row").filter({ hasText: spare }).getByText("revoked").waitFor();
    await none(page.getByRole("button", { name: `Revoke… ${spare}` }), "it can be revoked again");
  });
}

/** Which status a sign-in is answered with. */
async function signIn(who, secret) {
  const answer = await fetch(`${base}/v1/auth/login`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ email: who, password: secret }) });
  return answer.status;
}

/** Enrols an executor that no process is behind, in the first site. */
async function enrol(name) {
  const token = await page.evaluate(async () => {
    const headers = { "X-Rackhand-Client": "browser", "Content-Type": "application/json" };
    const sites = await (await fetch("/v1/sites", { headers })).json();
    return (await (await fetch(`/v1/sites/${sites.items[0].id}/enrolment-tokens`, { method: "POST", headers, body: "{}" })).json()).token;
  });
  const key = (kind) => Buffer.from(generateKeyPairSync(kind).publicKey.export({ format: "jwk" }).x, "base64url").toString("base64");
  const body = JSON.stringify({ token, name, signing_key: key("ed25519"), sealing_key: key("x25519") });
  const answer = await fetch(`${base}/v1/executor/enrol`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  ok(answer.status === 201 || answer.status === 200, `the spare executor was not enrolled: ${answer.status}`);
}

/** Nothing is sent to the control plane meanwhile. */
async function quiet(work) {
  const sent = [];
  const listen = (request) => {
    if (request.method() !== "GET") sent.push(`${request.method()} ${new URL(request.url()).pathname}`);
  };
  page.on("request", listen);
  await work();
  await drawn();
  page.off("request", listen);
  ok(sent.length === 0, `something was sent: ${sent.join(", ")}`);
}

async function step(name, work) {
  at = name;
  since = Date.now();
  expected = undefined;
  await work();
  console.log(`path: ${name} (${((Date.now() - since) / 1000).toFixed(1)} s)`);
}

/** Axe and a screenshot in both themes of the system, which the app follows as long as nobody has chosen one. What shows
 *  only another state of a page that was looked at in both needs one of them. */
async function check(name, themes = ["light", "dark"]) {
  for (const theme of themes) {
    await page.emulateMedia({ colorScheme: theme });
    await eventually(async () => (await shownTheme()) === theme, `${name} does not show the ${theme} theme`);
    await drawn();
    await held(name);
    await reasons(name);
    await page.screenshot({ path: join(out, `${name}-${theme}.png`) });
    shots += 1;
    // What the themes differ in is colour.
    // Otherwise it opens a page of its own for each look, and this one stands in the background meanwhile.
    const axe = new AxeBuilder({ page }).setLegacyMode();
    const { violations } = await (theme === "light" ? axe : axe.withRules(["color-contrast", "link-in-text-block"])).analyze();
    if (violations.length > 0) {
      const list = violations.map(({ id, help, nodes }) => `  ${id}: ${help}\n${nodes.slice(0, 4).map((node) => `    ${node.html}\n    ${node.failureSummary?.replace(/\n/g, "\n    ")}`).join("\n")}`);
      throw new Error(`axe found ${violations.length} violations on ${name} (${theme}):\n${list.join("\n")}`);
    }
  }
}

/** Nothing of this page's tables is cut, squeezed to a word a line, or waits for sideways scrolling, on screens from
 *  1280 px down to 400 px, and no cell's text leaves it; nor is the page itself wider than the screen. */
async function uncut(name) {
  const former = page.viewportSize();
  for (const width of [1280, 1060, 820, 400]) {
    await page.setViewportSize({ width, height: former.height });
    await drawn();
    const cut = await page
      .getByRole("region", { name: /, scrollable$/ })
      .locator("visible=true")
      .evaluateAll((regions) =>
        regions
          .flatMap((region) => [region, ...region.querySelectorAll("td, [data-row], [data-row] *")])
          .filter((box) => box.checkVisibility() && (box.tagName === "TD" || getComputedStyle(box).overflowX !== "visible") && (box.tagName === "TD" || box.clientWidth > 1) && box.scrollWidth > box.clientWidth + 1)
          .map((box) => `${box.tagName.toLowerCase()} “${box.innerText.slice(0, 80)}”`),
      );
    ok(cut.length === 0, `${name} cuts at ${width} px: ${cut.join(" | ")}`);
    const squeezed = await page.locator("td a, td button").locator("visible=true").evaluateAll((links) =>
      links
        .filter((link) => {
          const words = document.createRange();
          words.selectNodeContents(link);
          const lines = new Set([...words.getClientRects()].map((line) => Math.round(line.top))).size;
          return lines > 2 && link.innerText.length < lines * 10;
        })
        .map((link) => `“${link.innerText}”`),
    );
    ok(squeezed.length === 0, `${name} squeezes at ${width} px: ${squeezed.join(" | ")}`);
    const wide = await page.evaluate(() => [document.documentElement, document.querySelector("main")].filter((box) => box && box.scrollWidth > box.clientWidth).map((box) => `${box.tagName.toLowerCase()} ${box.scrollWidth} > ${box.clientWidth}`));
    ok(wide.length === 0, `${name} scrolls sideways at ${width} px: ${wide.join(", ")}`);
    await held(name);
    await page.screenshot({ path: join(out, `${name}-${width}.png`) });
    shots += 1;
  }
  await page.setViewportSize(former);
  await drawn();
}

/** The document never scrolls: beyond the app there is nothing. */
async function held(name) {
  const { long, high, width } = await page.evaluate(() => ({ long: document.documentElement.scrollHeight, high: innerHeight, width: innerWidth }));
  ok(long <= high, `${name} scrolls beyond the app at ${width} px: ${long} > ${high}`);
}

/** Whatever is disabled says why. */
async function reasons(name) {
  const silent = await page
    .locator(":disabled, [aria-disabled=true]")
    .locator("visible=true")
    .evaluateAll((controls) =>
      controls
        // One that has been enabled since it was found needs no reason any more.
        .filter((control) => control.matches(":disabled, [aria-disabled=true]") && !control.matches("option"))
        .filter((control) => !control.title && !(control.getAttribute("aria-describedby") ?? "").split(" ").some((id) => document.getElementById(id)?.textContent))
        .map((control) => control.outerHTML.slice(0, 200)),
    );
  ok(silent.length === 0, `disabled without a reason on ${name}:\n  ${silent.join("\n  ")}`);
}

/** Waits until what was changed is on the screen. */
async function drawn() {
  await page.evaluate(async () => {
    await document.fonts.ready;
    for (let frame = 0; frame < 2; frame += 1) await new Promise((done) => requestAnimationFrame(done));
  });
}

/** Looks until it holds: the page follows the control plane, and a busy machine takes its time. */
async function eventually(holds, message) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    if (await holds()) return;
    if (Date.now() > end) throw new Error(typeof message === "function" ? await message() : message);
    await page.waitForTimeout(50);
  }
}

/** Waits until nothing of that kind is on the page. */
async function none(locator, message) {
  await eventually(async () => (await locator.count()) === 0, message);
}

/** Which theme is on the screen, by the brightness of the page's ground. */
async function shownTheme() {
  const [light] = (await page.evaluate(() => {
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  }));
  return light > 127 ? "light" : "dark";
}

/** Answers a path of the API for a while as a control plane in another state would. */
async function answering(path, json, work, status = 200) {
  const matches = (url) => url.pathname === path;
  await page.route(matches, (route) => route.fulfill({ status, json }));
  await page.reload();
  await work();
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.reload();
}

function ok(condition, message) {
  if (!condition) throw new Error(message);
}

function wantedVersions(value) {
  const packages = value.params?.packages ?? value.packages ?? value;
  return Object.fromEntries(Object.entries(packages).map(([generation, item]) => [generation, item.version]));
}

function escape(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
