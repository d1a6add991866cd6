// Transpiles the component with jco and makes instances of it, each with its own memory.
//
// One instance of what jco 1.35 makes cannot interleave two requests (the second one hangs both), but
// instances do interleave with each other in one process. So there are as many as requests under way.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { transpile } from "@bytecodealliance/jco-transpile";
import * as cli from "@bytecodealliance/preview2-shim/cli";
import * as clocks from "@bytecodealliance/preview2-shim/clocks";
import * as filesystem from "@bytecodealliance/preview2-shim/filesystem";
import * as io from "@bytecodealliance/preview2-shim/io";
import * as random from "@bytecodealliance/preview2-shim/random";
import { monotonicClock } from "@bytecodealliance/preview3-shim/clocks";
import { types as httpTypes } from "@bytecodealliance/preview3-shim/http";

import { Connection, ConnectionBuilder } from "./postgres.mjs";

const NAME = "component";

/** The folder below `out` with the component as JavaScript; made if this very component was not yet there. */
export async function transpiled(component, out) {
  const lock = readFileSync(new URL("package-lock.json", import.meta.url));
  const digest = createHash("sha256").update(await readFile(component)).update(lock).digest("hex").slice(0, 32);
  const folder = join(out, digest);
  await mkdir(out, { recursive: true });
  const others = (await readdir(out)).filter((name) => name !== digest);
  if (await readFile(join(folder, "package.json")).catch(() => null)) return folder;
  const made = join(out, `${digest}.${process.pid}`);
  const options = { name: NAME, asyncMode: "jspi", instantiation: "async", emitTypescriptDeclarations: false };
  const { files } = await transpile(component, options);
  await mkdir(made);
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(made, name), bytes);
  await writeFile(join(made, "package.json"), '{"type":"module"}\n');
  // Another process may have been quicker; its files are the same.
  await rename(made, folder).catch(() => rm(made, { recursive: true, force: true }));
  for (const name of others) await rm(join(out, name), { recursive: true, force: true });
  return folder;
}

/** Gives a function that makes an instance. `ui` is the host's folder that the component sees as `/ui`. */
export async function load(folder, variables, ui) {
  const { instantiate } = await import(pathToFileURL(join(folder, `${NAME}.js`)).href);
  const cores = new Map();
  const core = (name) => {
    if (!cores.has(name)) cores.set(name, readFile(join(folder, name)).then((bytes) => WebAssembly.compile(bytes)));
    return cores.get(name);
  };
  const files = filesystem.createFilesystem({ preopens: ui ? { "/ui": ui } : {} });
  const imports = {
    "spin:postgres/postgres": { Connection, ConnectionBuilder },
    "spin:variables/variables": {
      async get(name) {
        if (!Object.hasOwn(variables, name)) throw { payload: { tag: "undefined", val: name } };
        return variables[name];
      },
    },
    "wasi:cli/environment": { ...cli.environment, getEnvironment: () => [], getArguments: () => [] },
    "wasi:cli/exit": cli.exit,
    "wasi:cli/stdin": cli.stdin,
    "wasi:cli/stdout": { ...cli.stdout, getStdout: cli.stderr.getStderr },
    "wasi:cli/stderr": cli.stderr,
    "wasi:cli/terminal-input": cli.terminalInput,
    "wasi:cli/terminal-output": cli.terminalOutput,
    "wasi:cli/terminal-stdin": { getTerminalStdin: () => undefined },
    "wasi:cli/terminal-stdout": { getTerminalStdout: () => undefined },
    "wasi:cli/terminal-stderr": { getTerminalStderr: () => undefined },
    // The component imports 0.2 and 0.3 side by side.
    "wasi:clocks/monotonic-clock": { ...clocks.monotonicClock, waitFor: monotonicClock.waitFor },
    "wasi:clocks/wall-clock": clocks.wallClock,
    "wasi:filesystem/preopens": files.preopens,
    "wasi:filesystem/types": files.types,
    "wasi:http/types": httpTypes,
    "wasi:io/error": io.error,
    "wasi:io/poll": io.poll,
    "wasi:io/streams": io.streams,
    "wasi:random/insecure-seed": random.insecureSeed,
    "wasi:random/random": random.random,
  };
  return () => instantiate(core, imports);
}
