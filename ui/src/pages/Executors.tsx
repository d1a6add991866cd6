/** The executors: which are enrolled, which are online, what they hold. */
import { useQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";

import { executorsQuery, sitesQuery } from "../api/queries";
import type { Executor } from "../api/types";
import { ExecutorStatus } from "../components/Status";
import { Age, Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { count, words } from "../lib/format";

export function Executors() {
  const { site } = useSearch({ from: "/signed-in/executors" });
  const { data, error, isPending, refetch } = useQuery(executorsQuery(site));
  const { data: sites } = useQuery(sitesQuery);
  const executors = data?.items ?? [];
  const online = executors.filter((executor) => executor.online && executor.state === "active").length;
  const siteName = (id: string): string => sites?.items.find((item) => item.id === id)?.name ?? id.slice(-8);
  return (
    <>
      <PageHead title="Executors" meta={data && `${online} of ${count(executors.filter((item) => item.state !== "revoked").length, "executor")} online`} />
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={data ? "The list is out of date" : "The executors cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {isPending && <Loading what="the executors" />}
      {data && executors.length === 0 && (
        <div className="panel">
          <Empty title="No executor has been enrolled">
            <p>Make a one-time token with <code className="mono">rackhand executors enrol-token</code>, then give it to this on a machine inside the site:</p>
            <pre className="panel mono bg-sunk mt-3 overflow-x-auto px-3 py-2 text-left">
              {`rackhand-executor enrol --server ${location.origin} \\\n  --data /var/lib/rackhand --name $(hostname) --token-stdin`}
            </pre>
          </Empty>
        </div>
      )}
      {executors.length > 0 && (
        <div className="panel overflow-x-auto" tabIndex={0} role="region" aria-label="Executor list, scrollable">
          <table className="grid-table min-w-[900px]">
            <caption className="sr-only">Executors</caption>
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">Status</th>
                <th scope="col">Site</th>
                <th scope="col">Runs held</th>
                <th scope="col">Job kinds</th>
                <th scope="col">Version</th>
                <th scope="col">Last seen</th>
                <th scope="col">Enrolled</th>
                <th scope="col">Fingerprint</th>
              </tr>
            </thead>
            <tbody>
              {executors.map((executor) => (
                <tr key={executor.id} data-row>
                  <td className="font-medium">{executor.name}</td>
                  <td>
                    <ExecutorStatus state={status(executor)} />
                  </td>
                  <td>{siteName(executor.site_id)}</td>
                  <td className="mono">{executor.runs_held}</td>
                  <td className="text-soft">{executor.kinds.map(words).join(", ")}</td>
                  <td className="mono">{executor.version}</td>
                  <td>
                    <Age at={executor.seen_at} />
                  </td>
                  <td>
                    <Age at={executor.enrolled_at} />
                  </td>
                  <td className="mono text-soft max-w-56" title={executor.fingerprint}>
                    {executor.fingerprint}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function status(executor: Executor): "online" | "offline" | "joining" | "revoked" {
  if (executor.state !== "active") return executor.state;
  return executor.online ? "online" : "offline";
}
