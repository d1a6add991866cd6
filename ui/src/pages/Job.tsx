/** One job: its plan until it is approved, then its runs as they happen. */
import { useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";

import { isOver, jobQuery, jobRunsQuery, meQuery, sitesQuery } from "../api/queries";
import type { Job } from "../api/types";
import { Counters } from "../components/Counters";
import { JobStatus } from "../components/Status";
import { Age, Empty, For, Loading, PageHead, ProblemNote, Unread } from "../components/ui";
import { jobTitle, noRunsNote, pausedNote, shownJobState } from "../lib/job";
import { shownState } from "../lib/run";
import { JobActions } from "./job/Actions";
import { Lanes } from "./job/Lanes";
import { PlanView } from "./job/PlanView";
import { RunPanel } from "./job/RunPanel";

export function JobPage() {
  const { id } = useParams({ from: "/signed-in/jobs/$id" });
  const { data: job, error, isPending, refetch } = useQuery(jobQuery(id));
  if (isPending) return <Loading what="the job" />;
  if (job === undefined) return <Unread what="This job cannot be shown" error={error} retry={() => void refetch()} list={<Link to="/jobs" className="link">All jobs</Link>} />;
  return <Loaded key={id} job={job} error={error} />;
}

function Loaded({ job, error }: { job: Job; error: unknown }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const search = useSearch({ from: "/signed-in/jobs/$id" });
  const queries = useQueryClient();
  const site = sites?.items.find((item) => item.id === job.site_id);
  const paused = shownJobState(job) === "paused";
  const view = search.view ?? (job.state === "planned" ? "plan" : "runs");
  const put = (next: Job): void => {
    queries.setQueryData(["job", job.id], next);
    void queries.invalidateQueries({ queryKey: ["job", job.id] });
    void queries.invalidateQueries({ queryKey: ["jobs"] });
  };
  return (
    <>
      <PageHead
        title={jobTitle(job)}
        meta={
          <>
            <JobStatus state={shownJobState(job)} />
            <span>{isOver(job.state) ? <Age at={job.since} /> : <For since={job.since} />}</span>
            <span>in {job.site}</span>
            <span>
              by {job.created_by_name}, <Age at={job.created_at} />
            </span>
            {job.plan.approved_by_name && <span>approved by {job.plan.approved_by_name}</span>}
          </>
        }
        actions={<JobActions job={job} me={me} put={put} />}
      />
      <div className="flex flex-wrap items-baseline justify-between gap-x-6 pb-3">
        <p>
          <span className="eyebrow pr-2">Reason</span>
          {job.reason}
        </p>
        <p className="text-faint text-[11px]">
          trace <code className="font-mono select-all">{job.trace_id.replaceAll("-", "")}</code>
        </p>
      </div>
      {(job.state_reason !== "" || paused) && (
        <p role="status" className={`mb-3 rounded-md border px-3 py-2 ${paused ? "border-warn/40 bg-warn-wash" : "border-line bg-raised"}`}>
          {paused ? pausedNote(job) : job.state_reason}
        </p>
      )}
      {error !== null && (
        <div className="pb-3">
          <ProblemNote error={error} what="What is shown may be out of date" />
        </div>
      )}
      {job.state !== "planned" && (
        <nav aria-label="Views of the job" className="border-line mb-4 flex gap-5 border-b">
          {(["runs", "plan"] as const).map((name) => (
            <Link
              key={name}
              from="/jobs/$id"
              to="."
              search={(old) => ({ ...old, view: name })}
              aria-current={view === name ? "page" : undefined}
              className={`-mb-px border-b-2 pb-2 font-medium ${view === name ? "border-accent text-ink" : "text-soft hover:text-ink border-transparent"}`}
            >
              {name === "runs" ? `Runs (${job.targets})` : "Plan"}
            </Link>
          ))}
        </nav>
      )}
      {view === "plan" ? <PlanView job={job} me={me} site={site} put={put} /> : <Runs job={job} />}
    </>
  );
}

function Runs({ job }: { job: Job }) {
  const search = useSearch({ from: "/signed-in/jobs/$id" });
  const navigate = useNavigate({ from: "/jobs/$id" });
  const over = isOver(job.state);
  const paused = shownJobState(job) === "paused";
  const { data: runs, error, isPending, refetch } = useQuery(jobRunsQuery(job.id, over));
  const tally: Record<string, number> = {};
  for (const state of (runs ?? []).map(shownState)) tally[state] = (tally[state] ?? 0) + 1;
  const shown = search.only ? (runs ?? []).filter((run) => shownState(run) === search.only) : (runs ?? []);
  const chosen = runs?.find((run) => run.id === search.run);
  return (
    <div className="flex min-h-0 flex-1 flex-col gap-4">
      <Counters
        runs={runs ? tally : job.runs}
        total={job.targets}
        only={search.only}
        choose={(only) => void navigate({ search: (old) => ({ ...old, only }), replace: true, resetScroll: false })}
      />
      {error && <ProblemNote error={error} what={runs ? "The runs are out of date" : "The runs cannot be read"} retry={() => void refetch()} />}
      {isPending && <Loading what="the runs" />}
      {runs && runs.length === 0 && (
        <div className="panel">
          <Empty title="No runs">{noRunsNote(job)}</Empty>
        </div>
      )}
      {runs && runs.length > 0 && (
        // Below each other both keep their height, and the page scrolls.
        <div className={`grid flex-1 gap-4 ${chosen ? "xl:min-h-0 xl:grid-cols-[minmax(0,1fr)_minmax(0,1fr)]" : "min-h-0"}`}>
          <Lanes runs={shown} chosen={search.run} narrow={chosen !== undefined} paused={paused} />
          {chosen && <RunPanel key={chosen.id} run={chosen} job={job} paused={paused} line={search.line} />}
        </div>
      )}
    </div>
  );
}
