/** One run in full: how it stands, its phases with what was read back, its effects, its live log. */
import { useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";

import { api, body } from "../../api/client";
import { executorsQuery, isRunOver, meQuery, runQuery, sitesQuery } from "../../api/queries";
import type { Job, Run, RunDetail } from "../../api/types";
import { ReasonField } from "../../components/fields";
import { FormDialog } from "../../components/FormDialog";
import { RunStatus, Shape } from "../../components/Status";
import { PHASE } from "../../components/tones";
import { Age, ProblemNote, useNow } from "../../components/ui";
import { nameOf, withoutName, words } from "../../lib/format";
import { REASON } from "../../lib/job";
import { missingRole } from "../../lib/roles";
import { canClose, closeNote, closing, effectText, heldBy, type ShownPhase, shownPhases, shownState } from "../../lib/run";
import { useEventLog } from "../../live/log";
import { laneText, spent } from "./Lanes";
import { LogView } from "./LogView";

export function RunPanel({ run, job, paused, line }: { run: Run; job: Job; paused: boolean; line: string | undefined }) {
  const over = isRunOver(run.state);
  const { data: detail, error } = useQuery(runQuery(run.id, over));
  const log = useEventLog({ run: run.id });
  const now = useNow();
  const panel = useRef<HTMLElement>(null);
  // On a low screen it begins below what is visible.
  useEffect(() => {
    // What it answers is a promise in newer browsers, and no clean-up.
    void panel.current?.scrollIntoView({ block: "nearest" });
  }, []);
  const closed = closing(log.items);
  const explained = run.state === "failed" || run.state === "unknown" || run.state === "cancelled";
  return (
    <section ref={panel} className="panel flex min-h-[460px] flex-col xl:h-full" aria-label={`Run on ${run.server}`}>
      <div className="border-line bg-raised flex items-start justify-between gap-3 border-b px-3 py-2">
        <div className="min-w-0">
          <h2 className="flex flex-wrap items-center gap-x-3 text-sm font-medium">
            <Link to="/servers/$id" params={{ id: run.server_id }} className="link wrap-anywhere">
              {run.server}
            </Link>
            <RunStatus state={shownState(run)} />
            {typeof run.percent === "number" && !over && <span className="mono whitespace-nowrap">{run.percent} %</span>}
          </h2>
          <p className="text-soft mt-0.5">{laneText(explained ? { ...run, detail: "", reason: "" } : run, now, { paused })}</p>
          {run.state === "unknown" && closed && (
            <p className="text-soft">
              Closed by {closed.actor}, <Age at={closed.at} />
            </p>
          )}
          {canClose(run, job, closed !== undefined, log.complete || log.error !== undefined) && (
            <div className="flex flex-wrap items-center gap-x-3 gap-y-1 pt-1.5">
              <CloseRun run={run} />
            </div>
          )}
        </div>
        <Link from="/jobs/$id" to="." resetScroll={false} search={(old) => ({ ...old, run: undefined, line: undefined })} className="btn btn-quiet h-7! shrink-0 px-2!" aria-label="Hide this panel">
          <svg width="12" height="12" viewBox="0 0 12 12" stroke="currentColor" strokeWidth="1.5" aria-hidden="true">
            <path d="m2 2 8 8m0-8-8 8" />
          </svg>
        </Link>
      </div>
      {explained && run.reason !== "" && (
        <p className={`border-line border-b px-3 py-2 ${run.state === "cancelled" ? "bg-raised" : "bg-bad-wash"}`}>
          {withoutName(run.detail, run.server)}{" "}
          <a className="link" href={`/errors/${encodeURIComponent(run.reason)}`} target="_blank" rel="noreferrer">
            {run.reason}: what to do
          </a>
        </p>
      )}
      {error && <ProblemNote error={error} what="The timeline cannot be read" />}
      {detail && detail.phases.length > 0 && <Phases detail={detail} now={now} />}
      {detail && detail.effects.length > 0 && <Effects detail={detail} />}
      <LogView run={run.id} log={log} server={run.server} line={line} over={over} />
    </section>
  );
}

/** Ends a run that nobody can finish. Nothing is done to the server. */
function CloseRun({ run }: { run: Run }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const { data: executors } = useQuery(executorsQuery(run.site_id));
  const queries = useQueryClient();
  const [reason, setReason] = useState("");
  const holder = executors?.items.find((executor) => executor.id === run.executor);
  const blocked = missingRole(me, "operator", run.site_id, nameOf(sites?.items, run.site_id)) ?? heldBy(run, holder);
  return (
    <FormDialog
      label="Close run…"
      look="small"
      danger
      blocked={blocked}
      explain
      title={`Close the run on ${run.server}`}
      note={closeNote(run)}
      send="Close run"
      wrong={reason.trim().length < REASON.min ? REASON.short : undefined}
      failed="The run was not closed"
      act={() => body(api.POST("/v1/runs/{id}/close", { params: { path: { id: run.id } }, body: { reason: reason.trim() } }))}
      done={() => {
        setReason("");
        for (const queryKey of [["job", run.job_id], ["run", run.id], ["jobs"], ["server", run.server_id]]) void queries.invalidateQueries({ queryKey });
      }}
    >
      <ReasonField value={reason} set={setReason} />
    </FormDialog>
  );
}

function Phases({ detail, now }: { detail: RunDetail; now: number }) {
  return (
    <ol className="border-line max-h-52 shrink-0 overflow-auto border-b py-1.5" aria-label="Phases" tabIndex={0}>
      {shownPhases(detail).map((phase) => (
        <li key={phase.phase} className="px-3 py-0.5">
          <Phase phase={phase} now={now} />
        </li>
      ))}
    </ol>
  );
}

function Phase({ phase, now }: { phase: ShownPhase; now: number }) {
  const look = PHASE[phase.state] ?? { tone: "odd" as const, word: phase.state };
  const evidence = phase.evidence;
  const line = (
    <>
      <Shape tone={look.tone} />
      <span className="min-w-28 font-medium max-sm:min-w-20">{words(phase.phase)}</span>
      <span className="text-soft">{look.word}</span>
      <span className="mono text-soft whitespace-nowrap">{spent(phase, now)}</span>
    </>
  );
  const empty = evidence === null || evidence === undefined || (typeof evidence === "object" && Object.keys(evidence).length === 0);
  if (empty) return <div className="flex items-center gap-2 pl-[18px]">{line}</div>;
  return (
    <details>
      <summary className="inline-flex items-center gap-2">
        <span className="text-faint w-2.5 text-center" aria-hidden="true">
          ›
        </span>
        {line}
        <span className="text-faint text-xs">evidence</span>
      </summary>
      <pre className="mono bg-sunk my-1 ml-[18px] overflow-x-auto rounded p-2">{JSON.stringify(evidence, null, 2)}</pre>
    </details>
  );
}

const EFFECT: Record<string, "ok" | "busy" | "wait" | "off" | "odd"> = {
  intended: "wait",
  applied: "busy",
  not_applied: "off",
  settling: "busy",
  settled: "ok",
  conflict: "odd",
};

function Effects({ detail }: { detail: RunDetail }) {
  return (
    <div className="border-line shrink-0 border-b px-3 py-1.5">
      <h3 className="eyebrow pb-1">Temporary changes</h3>
      <ul>
        {detail.effects.map((effect) => (
          <li key={effect.id} className="flex items-start gap-x-2">
            <span className="pt-[3px]">
              <Shape tone={EFFECT[effect.state] ?? "odd"} />
            </span>
            {effectText(effect)}
          </li>
        ))}
      </ul>
    </div>
  );
}
