// Runs the Worker on this machine, in workerd under Miniflare, as wrangler.toml describes it.
//
//   node serve.mjs SETTINGS    a JSON file: {port, hyperdrive?, bindings: {SIGNING_KEY, …}}
//
// Secrets come by file, so that no process list shows them. Prints {"url"} once it serves. The cron trigger comes
// every minute, and with SIGUSR2.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";
import { unstable_getMiniflareWorkerOptions } from "wrangler";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const manifest = fileURLToPath(new URL("../../wrangler.toml", import.meta.url));
const build = fileURLToPath(new URL("build/", import.meta.url));
const { workerOptions } = unstable_getMiniflareWorkerOptions(manifest);

const miniflare = new Miniflare({
  ...workerOptions,
  host: "127.0.0.1",
  port: settings.port ?? 0,
  log: new Log(LogLevel.WARN),
  // What the Worker logs.
  handleRuntimeStdio: (stdout, stderr) => {
    stdout.pipe(process.stderr);
    stderr.pipe(process.stderr);
  },
  // Else it asks the network where it is.
  cf: false,
  modulesRoot: build,
  modules: [
    { type: "ESModule", path: `${build}index.js` },
    { type: "CompiledWasm", path: `${build}index_bg.wasm` },
  ],
  bindings: { ...workerOptions.bindings, ...settings.bindings },
  hyperdrives: settings.hyperdrive ? { DB: settings.hyperdrive } : {},
});
const url = await miniflare.ready;
console.log(JSON.stringify({ url: url.origin }));

const scheduled = async () => {
  const worker = await miniflare.getWorker();
  const { outcome } = await worker.scheduled({ cron: "* * * * *" });
  console.error(`scheduled: ${outcome}`);
};
setInterval(scheduled, 60_000);
process.on("SIGUSR2", scheduled);
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, async () => {
    await miniflare.dispose();
    process.exit(0);
  });
}
