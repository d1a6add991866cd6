// The module the Workers runtime loads: hands events to the Rust code.
//
// A panic ends the WebAssembly instance, and the next call makes a new one. The request that met it is answered
// here with the same problem that the Router gives; objects made by the old instance are made anew.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";
import * as rust from "./build/bindgen/index.js";

const state = rust.__worker_init_state();

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
      return await rust.fetch(request, this.env, this.ctx);
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
    return this.half(rust.Pool).fetch(request);
  }
}

export class Topic extends Living {
  fetch(request) {
    return this.half(rust.Topic).fetch(request);
  }

  webSocketMessage() {}

  webSocketClose(socket, code, reason, clean) {
    return this.half(rust.Topic).webSocketClose(socket, code, reason, clean);
  }

  webSocketError() {}
}
