// The Worker as it is deployed, behind a runtime that is broken on request: with `x-broken` its headers are no
// text, which no real runtime does, and which the Rust code meets with a panic.
//
//   node panic.mjs FOLDER SETTINGS    the Worker's folder; a JSON file {bindings}
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, settings] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { Miniflare } = await import(require.resolve("miniflare"));
const { unstable_getMiniflareWorkerOptions } = await import(require.resolve("wrangler"));

const broken = `
import Control, { Pool, Topic } from "./index.js";
export { Pool, Topic };
const headers = { entries: () => [[7, 7]].values() };
export default class extends Control {
  fetch(request) {
    if (!request.headers.has("x-broken")) return super.fetch(request);
    const lie = { get: (of, name) => name === "headers" ? headers : of[name] };
    return super.fetch(new Proxy(request, lie));
  }
}`;
const { workerOptions } = unstable_getMiniflareWorkerOptions(`${folder}/../../wrangler.toml`);
const { bindings } = JSON.parse(readFileSync(settings, "utf8"));
const miniflare = new Miniflare({
  ...workerOptions,
  host: "127.0.0.1",
  port: 0,
  cf: false,
  handleRuntimeStdio: (stdout, stderr) => {
    stdout.pipe(process.stderr);
    stderr.pipe(process.stderr);
  },
  modulesRoot: `${folder}/build`,
  modules: [
    { type: "ESModule", path: `${folder}/build/broken.mjs`, contents: broken },
    { type: "ESModule", path: `${folder}/build/index.js` },
    { type: "CompiledWasm", path: `${folder}/build/index_bg.wasm` },
  ],
  bindings: { ...workerOptions.bindings, ...bindings },
});
console.log(JSON.stringify({ url: (await miniflare.ready).origin }));
// The test ends it.
process.stdin.on("end", () => miniflare.dispose().then(() => process.exit(0))).resume();
