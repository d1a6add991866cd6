// The module the Workers runtime loads: hands events to the Rust code.
//
// A panic ends the WebAssembly instance, and the next call makes a new one. Whatever the old one had begun would
// never end: it fails here at once, requests with the same problem that the Router gives. Objects made by the old
// instance are made anew.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";
import * as rust from "./build/bindgen/index.js";

const state = rust.__worker_init_state();

/** Ends of what the living instance has begun. */
const begun = new Set();

function fail(error) {
  const all = [...begun];
  begun.clear();
  for (const reject of all) reject(error);
}

/** What `work` promises, unless the instance ends first. */
function living(work) {
  return new Promise((resolve, reject) => {
    const promise = new Promise((done) => done(work()));
    begun.add(reject);
    promise.then(resolve, reject).finally(() => begun.delete(reject));
  });
}

// The Rust side's panic hook sets the one, a new instance the other (after a trap without a panic).
let { instanceId } = state;
Object.defineProperties(state, {
  criticalError: { get: () => false, set: () => fail(new Error("the Rust code panicked")) },
  instanceId: {
    get: () => instanceId,
    set: (id) => {
      instanceId = id;
      fail(new Error("the WebAssembly instance ended"));
    },
  },
});

const PROBLEM = {
  type: "/errors/internal",
  title: "Internal error",
  status: 500,
  detail: "Rackhand could not do this. The log has the trace id.",
  code: "internal",
};

export default class Control extends WorkerEntrypoint {
  async fetch(request) {
    try {
      const answer = living(() => rust.fetch(request, this.env, this.ctx));
      // Also when the caller goes away: what was begun for it would else be kept, and never end.
      this.ctx.waitUntil(answer.catch(() => {}));
      return await answer;
    } catch (error) {
      console.error(JSON.stringify({ level: "ERROR", message: "panic", error: String(error) }));
      return Response.json(PROBLEM, {
        status: 500,
        headers: { "content-type": "application/problem+json", "cache-control": "no-store" },
      });
    }
  }

  async scheduled(event) {
    await rust.scheduled(event, this.env, this.ctx);
  }
}

/** A Durable Object whose Rust half belongs to the living WebAssembly instance. */
class Living extends DurableObject {
  #half;
  #instance;

  half(Class) {
    if (this.#instance !== state.instanceId) {
      this.#half = new Class(this.ctx, this.env);
      this.#instance = state.instanceId;
    }
    return this.#half;
  }
}

export class Pool extends Living {
  fetch(request) {
    return living(() => this.half(rust.Pool).fetch(request));
  }
}

export class Topic extends Living {
  fetch(request) {
    return living(() => this.half(rust.Topic).fetch(request));
  }

  webSocketMessage() {}

  webSocketClose(socket, code, reason, clean) {
    return this.half(rust.Topic).webSocketClose(socket, code, reason, clean);
  }

  webSocketError() {}
}
