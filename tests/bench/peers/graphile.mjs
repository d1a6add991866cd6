// The peer of the queue benchmark: graphile-worker, in its default mode and with its local queue and batched
// completion. Reads the database URL from stdin; prints one JSON line for each mode.
import { readFileSync } from "node:fs";
import { makeWorkerUtils, run } from "graphile-worker";

const JOBS = 20_000;
const CONCURRENCY = 24;
const connectionString = readFileSync(0, "utf8").trim();

const quiet = { error: console.error, warn() {}, info() {}, debug() {} };
const { Logger } = await import("graphile-worker");
const logger = new Logger(() => (level, message) => {
  if (level === "error") quiet.error(message);
});

async function measure(mode, worker) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await utils.withPgClient((client) =>
    client.query("select graphile_worker.add_job('nothing', json_build_object('n', i)) from generate_series(1, $1) i", [JOBS]),
  );
  // As on our side: without statistics its batched completion reads the whole table for each batch.
  await utils.withPgClient((client) => client.query("analyze"));
  let done = 0;
  const started = process.hrtime.bigint();
  let finished;
  const all = new Promise((resolve) => (finished = resolve));
  const runner = await run({
    connectionString,
    logger,
    concurrency: CONCURRENCY,
    maxPoolSize: CONCURRENCY + 2,
    preset: { worker: { concurrentJobs: CONCURRENCY, maxPoolSize: CONCURRENCY + 2, ...worker } },
    taskList: {
      nothing: () => {
        done += 1;
        if (done === JOBS) finished();
      },
    },
  });
  await all;
  await runner.stop(); // flushes batched completions
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  const left = await utils.withPgClient((client) => client.query("select count(*)::int as n from graphile_worker._private_jobs"));
  if (left.rows[0].n !== 0) throw new Error(`${left.rows[0].n} jobs left`);
  await utils.release();
  console.log(JSON.stringify({ part: "graphile-worker", mode, jobs: JOBS, seconds, per_second: JOBS / seconds }));
}

await measure("default", {});
await measure("batched", { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 });
