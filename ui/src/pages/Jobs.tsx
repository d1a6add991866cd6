/** All jobs, newest first as the server lists them. */
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";

import { jobsQuery } from "../api/queries";
import type { Job } from "../api/types";
import { Counters } from "../components/Counters";
import { JobStatus } from "../components/Status";
import { Age, Button, Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { count, words } from "../lib/format";
import { jobTitle, shownJobState } from "../lib/job";
import { JOB_STATES } from "../lib/search";

export function Jobs() {
  const filter = useSearch({ from: "/signed-in/jobs" });
  const navigate = useNavigate({ from: "/jobs" });
  const list = useInfiniteQuery({ ...jobsQuery(filter), placeholderData: keepPreviousData });
  const jobs = list.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <PageHead
        title="Jobs"
        actions={
          <label>
            <span className="sr-only">State</span>
            <select
              className="field"
              value={filter.state ?? ""}
              onChange={(event) =>
                void navigate({
                  search: (old) => ({ ...old, state: JOB_STATES.find((state) => state === event.target.value) }),
                  replace: true,
                })
              }
            >
              <option value="">State: any</option>
              {JOB_STATES.map((state) => (
                <option key={state} value={state}>
                  State: {words(state)}
                </option>
              ))}
            </select>
          </label>
        }
      />
      {list.error && (
        <div className="pb-3">
          <ProblemNote error={list.error} what={list.data ? "The list is out of date" : "The jobs cannot be read"} retry={() => void list.refetch()} />
        </div>
      )}
      {list.isPending && <Loading what="the jobs" />}
      {list.data && jobs.length === 0 && (
        <div className="panel">
          {filter.state ? (
            <Empty title={`No job is ${words(filter.state)}`}>
              <Button onClick={() => void navigate({ search: (old) => ({ ...old, state: undefined }) })}>Show all jobs</Button>
            </Empty>
          ) : (
            <Empty title="No jobs yet">
              Select{" "}
              <Link to="/servers" className="link">
                servers
              </Link>{" "}
              and choose “Update firmware”, “Power…” or “Read inventory”.
            </Empty>
          )}
        </div>
      )}
      {jobs.length > 0 && (
        <div className={`panel shrink-0 overflow-x-auto ${list.isPlaceholderData ? "opacity-60" : ""}`} tabIndex={0} role="region" aria-label="Job list, scrollable">
          <table role="table" className="grid-table cards">
            <caption className="sr-only">Jobs</caption>
            <thead>
              <tr role="row">
                <th scope="col">Job</th>
                <th scope="col">State</th>
                <th scope="col">Progress</th>
                <th scope="col">Site</th>
                <th scope="col">Reason</th>
                <th scope="col">By</th>
                <th scope="col">Created</th>
              </tr>
            </thead>
            <tbody>
              {jobs.map((job) => (
                <Row key={job.id} job={job} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list.hasNextPage && (
        <div className="pt-3 text-center">
          <Button busy={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
            {list.isFetchingNextPage ? "Reading…" : "Older jobs"}
          </Button>
        </div>
      )}
    </>
  );
}

function Row({ job }: { job: Job }) {
  return (
    <tr role="row" data-row>
      <td role="cell" className="whitespace-normal!">
        <Link to="/jobs/$id" params={{ id: job.id }} className="font-medium hover:underline">
          {jobTitle(job)}
        </Link>
        <span className="text-soft"> · {count(job.targets, "server")}</span>
      </td>
      <td role="cell">
        <JobStatus state={shownJobState(job)} />
      </td>
      <td role="cell" className="w-36">
        <Counters runs={job.runs} total={job.targets} compact />
      </td>
      <td role="cell" className="whitespace-normal! wrap-anywhere rows:min-w-20">
        {job.site}
      </td>
      <td role="cell" className="text-soft py-1! whitespace-normal! wrap-anywhere rows:max-w-96 rows:min-w-48">
        {job.reason}
      </td>
      <td role="cell" className="whitespace-normal!">
        {job.created_by_name}
      </td>
      <td role="cell">
        <Age at={job.created_at} />
      </td>
    </tr>
  );
}
