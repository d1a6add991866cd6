// HTTP/1.1 in front of the component: node:http on one side, wasi:http 0.3 on the other.

import { createServer } from "node:http";

import { types } from "@bytecodealliance/preview3-shim/http";
import { FutureReader, future } from "@bytecodealliance/preview3-shim/future";
import { StreamReader, readableByteStreamFromReader } from "@bytecodealliance/preview3-shim/stream";

// Idle instances beyond these are let go.
const KEPT_IDLE = 8;
// What jco makes keeps about 110 kB of each request (measured), so an instance serves so many, and then
// another takes its place. Spin bounds the life of its instances too.
const REQUESTS_PER_INSTANCE = 100;
const METHODS = new Set(["get", "head", "post", "put", "delete", "connect", "options", "trace", "patch"]);
const HOP_BY_HOP = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"]);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Instances for requests, one request each at a time; who finds none free waits in line. */
class Pool {
  #make;
  #most;
  #idle = [];
  #live = 0;
  #waiting = [];

  constructor(make, most) {
    this.#make = make;
    this.#most = most;
  }

  async take() {
    const free = this.#idle.pop();
    if (free) return free;
    if (this.#live >= this.#most) return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#live += 1;
    try {
      return { component: await this.#make(), served: 0 };
    } catch (error) {
      this.#live -= 1;
      throw error;
    }
  }

  /** `sound`: it finished its request and can take another. */
  give(instance, sound) {
    instance.served += 1;
    const next = this.#waiting.shift();
    const keep = sound && instance.served < REQUESTS_PER_INSTANCE;
    if (keep && next) return next.resolve(instance);
    if (keep && this.#idle.length < KEPT_IDLE) return void this.#idle.push(instance);
    this.#live -= 1;
    if (next) this.take().then(next.resolve, next.reject);
  }
}

function wasiRequest(incoming) {
  const fields = new types.Fields();
  for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
    const name = incoming.rawHeaders[at].toLowerCase();
    // Spin sets its own headers over what the client sent.
    if (!HOP_BY_HOP.has(name) && !name.startsWith("spin-")) {
      fields.append(name, Buffer.from(incoming.rawHeaders[at + 1], "latin1"));
    }
  }
  const { remoteAddress: address, remotePort: port } = incoming.socket;
  fields.append("spin-client-addr", encoder.encode(address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`));
  const trailers = new FutureReader(Promise.resolve({ tag: "ok", val: undefined }));
  const [request] = types.Request.new(fields, new StreamReader(bodyOf(incoming)), trailers, null);
  const method = incoming.method.toLowerCase();
  request.setMethod(METHODS.has(method) ? { tag: method } : { tag: "other", val: incoming.method });
  request.setScheme({ tag: "HTTP" });
  request.setAuthority(incoming.headers.host ?? "localhost");
  request.setPathWithQuery(incoming.url);
  return request;
}

// A body that breaks off ends here; its length then differs from what its header said.
async function* bodyOf(incoming) {
  try {
    for await (const chunk of incoming) yield chunk;
  } catch {
    return;
  }
}

/** Sends the component's answer; false when the client went away before its end. */
async function send(answer, outgoing, gone) {
  const response = answer?.tag === "ok" ? answer.val : answer;
  const [body, trailers] = types.Response.consumeBody(response, future().rx);
  const headers = response.getHeaders().copyAll().flatMap(([name, value]) => [name, decoder.decode(value)]);
  outgoing.writeHead(response.getStatusCode(), headers);
  outgoing.flushHeaders();
  const chunks = readableByteStreamFromReader(body, { name: "response body" }).getReader();
  for (;;) {
    const next = await Promise.race([chunks.read(), gone]);
    if (next === undefined) {
      chunks.cancel().catch(() => {});
      return false;
    }
    if (next.done) break;
    if (!outgoing.write(next.value)) await Promise.race([new Promise((more) => outgoing.once("drain", more)), gone]);
  }
  outgoing.end();
  await trailers.read();
  return true;
}

export function server(make, most) {
  const pool = new Pool(make, most);
  const http = createServer(async (incoming, outgoing) => {
    const gone = new Promise((resolve) => outgoing.once("close", () => resolve(undefined)));
    let instance;
    let sound = false;
    try {
      instance = await pool.take();
      const answer = await instance.component.handler.handle(wasiRequest(incoming));
      sound = await send(answer, outgoing, gone);
    } catch (error) {
      // The component trapped (a panic), or jco did: Spin answers 500 without a body.
      process.stderr.write(`jco: ${incoming.method} failed: ${error?.stack ?? JSON.stringify(error)}\n`);
      if (!outgoing.headersSent) outgoing.writeHead(500);
      outgoing.end();
    }
    if (instance) pool.give(instance, sound);
  });
  http.requestTimeout = 0;
  http.keepAliveTimeout = 30_000;
  return http;
}
