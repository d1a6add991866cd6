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
// Exit status: 0 when everything held, 1 otherwise, with the first failure on stderr.

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
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

await mkdir(out, { recursive: true });
const profile = await mkdtemp(join(tmpdir(), "rackhand-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 1440, height: 900 },
  locale: "en-GB",
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
page.setDefaultTimeout(15_000);

const consoleErrors = [];
page.on("pageerror", (error) => consoleErrors.push(`uncaught in the page: ${error.message}`));
page.on("console", (message) => {
  // A 401 before sign-in is how the app finds out that nobody is signed in.
  if (message.type() === "error" && !/status of 401/.test(message.text())) consoleErrors.push(`console: ${message.text()}`);
});

let shots = 0;
let status = 0;
let at = "start";
try {
  await run();
  if (consoleErrors.length > 0) throw new Error(`the page reported errors:\n  ${consoleErrors.join("\n  ")}`);
  console.log(`path: all steps held, ${shots} screenshots in ${out}`);
} catch (error) {
  status = 1;
  await page.screenshot({ path: join(out, "failure.png") }).catch(() => {});
  console.error(`path: FAILED at “${at}” (${page.url()})\n${error?.stack ?? error}`);
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
    await check("sign-in", { themed: false });
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
    if (process.env.SITE) await page.getByLabel("Site").selectOption({ label: process.env.SITE });
    const rows = page.getByRole("checkbox", { name: /^Select (?!the )/ });
    await rows.first().waitFor();
    await check("fleet");
    const wanted = await page.getByRole("combobox", { name: /^BMC/ }).getByRole("option").evaluateAll((options) => options.map((option) => option.value).find((value) => value !== ""));
    if (wanted) {
      await page.getByRole("combobox", { name: /^BMC/ }).selectOption(wanted);
      await page.waitForURL(new RegExp(`generation=${wanted}`));
      await page.reload();
      await rows.first().waitFor();
      ok((await page.getByRole("combobox", { name: /^BMC/ }).inputValue()) === wanted, "the filter did not survive a reload");
      await check("fleet-filtered");
      await page.getByRole("button", { name: "Clear filter" }).click();
      await page.waitForURL((url) => !url.search.includes("generation"));
      await rows.first().waitFor();
    }
    await page.getByLabel("Search", { exact: true }).fill("no-such-server-anywhere");
    await page.getByRole("heading", { name: "No server matches this filter" }).waitFor();
    await check("fleet-empty", { themed: false });
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await rows.first().waitFor();
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
    await page.getByRole("button", { name: "Paste JSON" }).click();
    await page.getByLabel("Packages as JSON").getByRole("textbox").fill(packagesText);
    await page.getByRole("button", { name: "Use these packages" }).click();
    await page.getByLabel("Reason").fill("Browser test: the whole path");
    await check("new-job");
    await page.getByRole("button", { name: "Make the plan" }).click();
  });

  let changes = 0;
  await step("the plan is read", async () => {
    await page.getByRole("heading", { name: "What will happen" }).waitFor();
    const plan = page.getByRole("table", { name: "Plan" });
    ok((await plan.getByRole("row").count()) === serverCount + 1, `the plan does not list ${serverCount} servers`);
    changes = await plan.getByRole("cell").filter({ hasText: "→" }).count();
    ok(changes > 0, "the plan changes nothing, so this test would prove nothing");
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
    const states = await lanes.evaluateAll((links) => links.map((link) => link.getAttribute("aria-label") ?? ""));
    ok(states.length > 0 && states.every((label) => /: (succeeded|no change)$/.test(label)), `a lane says otherwise: ${states.join("; ")}`);
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

  await step("the server page shows the new version", async () => {
    const plan = page.getByRole("navigation", { name: "Views of the job" }).getByRole("link", { name: "Plan" });
    await plan.click();
    const changed = page.getByRole("table", { name: "Plan" }).getByRole("row").filter({ hasText: "→" }).first();
    first.name = (await changed.getByRole("cell").first().innerText()).trim();
    await check("plan-approved", { themed: false });
    await page.getByRole("link", { name: "Servers", exact: true }).click();
    await page.getByLabel("Search", { exact: true }).fill(first.name);
    await page.getByRole("link", { name: first.name, exact: true }).click();
    await page.getByRole("heading", { name: first.name, exact: true }).waitFor();
    const table = page.getByRole("table", { name: "Installed firmware" });
    const cells = table.getByRole("cell").filter({ hasText: new RegExp(`^(${Object.values(versions).map(escape).join("|")})$`) });
    await cells.first().waitFor();
    await check("server");
  });

  await step("the lists show it too", async () => {
    await page.getByRole("link", { name: "Jobs", exact: true }).click();
    await page.getByRole("table", { name: "Jobs" }).getByRole("row").filter({ hasText: "Browser test: the whole path" }).filter({ hasText: "succeeded" }).first().waitFor();
    await check("jobs");
    await page.getByRole("link", { name: "Executors", exact: true }).click();
    await page.getByRole("table", { name: "Executors" }).getByText("online").first().waitFor();
    await check("executors");
  });
}

async function step(name, work) {
  at = name;
  const started = Date.now();
  await work();
  console.log(`path: ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}

/** Axe and a screenshot, in both themes. The sign-in page has no theme picker and follows the system. */
async function check(name, { themed = true } = {}) {
  for (const theme of ["light", "dark"]) {
    if (themed) await page.getByLabel("Theme").selectOption(theme);
    else await page.emulateMedia({ colorScheme: theme });
    await page.waitForTimeout(60);
    await page.screenshot({ path: join(out, `${name}-${theme}.png`) });
    shots += 1;
    const { violations } = await new AxeBuilder({ page }).analyze();
    if (violations.length > 0) {
      const list = violations.map(({ id, help, nodes }) => `  ${id}: ${help}\n${nodes.slice(0, 4).map((node) => `    ${node.html}\n    ${node.failureSummary?.replace(/\n/g, "\n    ")}`).join("\n")}`);
      throw new Error(`axe found ${violations.length} violations on ${name} (${theme}):\n${list.join("\n")}`);
    }
  }
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
