/** The executors: which are enrolled, which are online, what they hold. */
import { useQuery, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";

import { executorsQuery, meQuery, sitesQuery } from "../api/queries";
import { ExecutorTable } from "../components/ExecutorTable";
import { Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { onlineNote } from "../lib/executors";

export function Executors() {
  const { site } = useSearch({ from: "/signed-in/executors" });
  const { data, error, isPending, refetch } = useQuery(executorsQuery(site));
  const { data: sites } = useQuery(sitesQuery);
  const { data: me } = useSuspenseQuery(meQuery);
  const executors = data?.items ?? [];
  return (
    <>
      <PageHead title="Executors" meta={data && onlineNote(executors)} />
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={data ? "The list is out of date" : "The executors cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {isPending && <Loading what="the executors" />}
      {data && executors.length === 0 && (
        <div className="panel">
          <Empty title="No executor has been enrolled">
            An executor joins a site with a one-time token.{" "}
            <Link to="/sites" className="link">
              Go to the sites
            </Link>{" "}
            and choose “Enrol an executor”.
          </Empty>
        </div>
      )}
      {executors.length > 0 && (
        <div className="panel shrink-0">
          <ExecutorTable executors={executors} caption="Executors" me={me} sites={sites?.items ?? []} mixed />
        </div>
      )}
    </>
  );
}
