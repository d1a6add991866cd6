// Serves the Spin component under jco on 127.0.0.1: for tests and `cargo xtask up --host spin`, not Spin itself.
//
//   node serve.mjs --component FILE --variables FILE --out FOLDER [--ui FOLDER] [--port N] [--instances N]
//
// FILE of --variables is JSON, as for `spin up --variable @FILE`: secrets stand neither in arguments nor in the
// environment. When ready it prints one line `{"url": …}`; logs go to stderr. It ends with SIGINT, SIGTERM, its
// standard input (if that is a pipe) or its parent. jco needs JSPI: under an older Node.js it starts the one
// among its own packages.

import { spawn } from "node:child_process";
import { existsSync, fstatSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const FAREWELL_MS = 2_000;

function fail(text) {
  process.stderr.write(`serve.mjs: ${text}\n`);
  process.exit(1);
}

function untilTold(end) {
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, end);
  const stdin = fstatSync(0, { throwIfNoEntry: false });
  if (stdin?.isFIFO() || stdin?.isSocket()) process.stdin.on("end", end).on("error", end).resume();
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || end(), 500).unref();
}

function underNewerNode() {
  const node = fileURLToPath(new URL(`node_modules/node-${process.platform}-${process.arch}/bin/node`, import.meta.url));
  if (!existsSync(node)) fail("needs Node.js 25 or later (JSPI), or `npm ci` in its folder");
  // Without a limit V8 would let old instances lie about up to several gigabytes.
  const child = spawn(node, ["--max-old-space-size=384", ...process.argv.slice(1)], { stdio: ["pipe", "inherit", "inherit"] });
  // The child ends when its standard input does.
  untilTold(() => child.stdin.end());
  child.on("error", (error) => fail(error.message));
  child.on("exit", (code, signal) => (signal ? fail(`ended by ${signal}`) : process.exit(code)));
}

async function serve() {
  const text = { type: "string" };
  const options = { component: text, variables: text, out: text, ui: text, port: text, instances: text };
  const { values } = parseArgs({ options });
  for (const name of ["component", "variables", "out"]) if (!values[name]) fail(`--${name} is missing`);
  const [{ load, transpiled }, { server }, { endPools }] = await Promise.all([
    import("./component.mjs"),
    import("./http.mjs"),
    import("./postgres.mjs"),
  ]);
  const folder = await transpiled(values.component, values.out);
  const make = await load(folder, JSON.parse(readFileSync(values.variables, "utf8")), values.ui);
  const http = server(make, Number(values.instances ?? 64));
  http.on("error", (error) => fail(error.message));
  http.listen(Number(values.port ?? 0), "127.0.0.1", () => {
    process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${http.address().port}` })}\n`);
  });
  let ending = false;
  untilTold(async () => {
    if (ending) return;
    ending = true;
    setTimeout(() => process.exit(0), FAREWELL_MS).unref();
    await new Promise((done) => {
      http.close(done);
      http.closeIdleConnections();
      // Streams have no end of their own.
      setTimeout(() => http.closeAllConnections(), FAREWELL_MS / 2).unref();
    });
    await endPools();
    process.exit(0);
  });
}

if (typeof WebAssembly.Suspending !== "function") underNewerNode();
else await serve().catch((error) => fail(error.message));
