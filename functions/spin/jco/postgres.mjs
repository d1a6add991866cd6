// `spin:postgres` 4.2 over npm `pg`: the two functions that spin-sdk calls, and errors as Spin gives them.
//
// Like Spin it keeps a pool for each address behind `open`, and a query's refusal comes by the future after
// the rows, not by the call (Spin streams rows).

import pg from "pg";

const CONNECTIONS = 16;
const pools = new Map();

function pool(address) {
  let found = pools.get(address);
  if (!found) {
    const options = { max: CONNECTIONS, connectionTimeoutMillis: 5000, keepAlive: true };
    found = new pg.Pool({ connectionString: address, ...options });
    // A connection broke. An idle one is replaced at the next query; one in use fails its query by itself, but
    // Node.js would end the process over the event that nobody hears.
    found.on("error", () => {});
    found.on("connect", (client) => client.on("error", () => {}));
    pools.set(address, found);
  }
  return found;
}

export function endPools() {
  return Promise.allSettled([...pools.values()].map((each) => each.end()));
}

// What the component may get as text is text; anything else would be a type Spin has another case for.
const TEXT = { getTypeParser: () => (value) => value };
const EXTRAS = ["column", "constraint", "routine", "hint", "table", "datatype", "schema", "file", "line", "where"];

function queryFailed(error) {
  if (!(error instanceof pg.DatabaseError)) return { tag: "query-failed", val: { tag: "text", val: String(error) } };
  const { severity = "", code = "", message, detail } = error;
  const extras = EXTRAS.filter((name) => error[name] != null).map((name) => [name, String(error[name])]);
  const val = { asText: String(error), severity, code, message, detail, extras };
  return { tag: "query-failed", val: { tag: "db-error", val } };
}

// An instance that trapped gives nothing back; what its connection still does must not meet another request.
const lost = new FinalizationRegistry((client) => client.release(true));

export class Connection {
  #client;
  #broken = false;

  static async openAsync(address) {
    const connection = new Connection();
    try {
      connection.#client = await pool(address).connect();
      lost.register(connection, connection.#client, connection);
    } catch (error) {
      throw { payload: { tag: "connection-failed", val: error.message } };
    }
    return connection;
  }

  async queryAsync(text, params) {
    const values = params.map(({ tag, val }) => {
      if (tag !== "str") throw { payload: { tag: "bad-parameter", val: `a ${tag} where text is expected` } };
      return val;
    });
    let rows = [];
    let outcome = { tag: "ok" };
    try {
      ({ rows } = await this.#client.query({ text, values, rowMode: "array", types: TEXT }));
    } catch (error) {
      outcome = { tag: "err", val: queryFailed(error) };
      this.#broken ||= !(error instanceof pg.DatabaseError);
    }
    const cells = rows.map((row) => row.map((val) => (val === null ? { tag: "db-null" } : { tag: "str", val })));
    return [[], ReadableStream.from(cells), Promise.resolve(outcome)];
  }

  [Symbol.dispose]() {
    lost.unregister(this);
    this.#client?.release(this.#broken);
    this.#client = undefined;
  }
}

/** For `database_ca`, which a Postgres on this machine does not need. */
export class ConnectionBuilder {
  constructor() {
    throw new Error("the variable database_ca is not supported under jco");
  }
}
