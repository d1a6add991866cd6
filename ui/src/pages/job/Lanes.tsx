/** One lane per server: state, what it waits for and since when, and its phases on a shared time axis. */
import { useQueries } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type CSSProperties, type ReactNode, useEffect, useMemo, useRef, useState } from "react";

import { isRunOver, runQuery } from "../../api/queries";
import type { Run, RunDetail } from "../../api/types";
import { RunStatus } from "../../components/Status";
import { PHASE, RUN, type StatusTone } from "../../components/tones";
import { useNow } from "../../components/ui";
import { duration, withoutName, withoutPercent, words } from "../../lib/format";
import { shownPhases, shownState } from "../../lib/run";
import { type Axis, axis } from "../../lib/timeline";

/** The least height of a row; a cause makes it higher. */
const ROW = 54;
/** The head of the list with the list's frame. */
const HEAD = 32;

interface Props {
  runs: Run[];
  chosen: string | undefined;
  narrow: boolean;
  /** Whether the job is: nothing queued starts. */
  paused: boolean;
}

export function Lanes({ runs, chosen, narrow, paused }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({ count: runs.length, getScrollElement: () => scroller.current, estimateSize: () => ROW, overscan: 6 });
  const items = virtual.getVirtualItems();

  // Timelines are read for lanes that have been on the screen.
  const [seen, setSeen] = useState<ReadonlyMap<string, boolean>>(new Map());
  const visible = items.flatMap((item) => runs[item.index] ?? []);
  const signature = visible.map((run) => run.id + isRunOver(run.state)).join();
  useEffect(() => {
    setSeen((old) => {
      const next = new Map(old);
      for (const run of visible) next.set(run.id, isRunOver(run.state));
      return next;
    });
  }, [signature]);
  const details = useQueries({
    queries: [...seen].map(([id, over]) => runQuery(id, over)),
    combine: (results) => new Map(results.flatMap(({ data }) => (data ? [[data.id, data] as const] : []))),
  });

  const percents = runs.some(hasPercent);
  const states = new Set([...details.values()].flatMap((detail) => shownPhases(detail).map((phase) => phase.state)));
  const now = useNow();
  const scale = useMemo(() => {
    const spans = [...details.values()].flatMap((detail) =>
      shownPhases(detail).map((phase) => ({ start: Date.parse(phase.started_at), end: phase.finished_at ? Date.parse(phase.finished_at) : undefined })),
    );
    return axis(spans, now);
  }, [details, now]);

  return (
    <section
      // Not higher than its rows: room below them would look like a row that was not read.
      className={`panel flex min-h-[min(12rem,var(--rows))] flex-col self-start ${narrow ? "max-h-64 xl:max-h-full" : "max-h-full"}`}
      style={{ "--rows": `${HEAD + virtual.getTotalSize()}px` } as CSSProperties}
      aria-label="Runs"
    >
      <div className={`border-line bg-raised grid min-h-[30px] shrink-0 ${columns(narrow)} items-center border-b px-3`}>
        <span className="eyebrow">Server</span>
        <span className="eyebrow flex justify-between pl-3">
          <Legend states={states} />
          {scale.length > 0 && <span className="normal-case whitespace-nowrap max-sm:hidden">{duration(scale.length)}{scale.cuts.length > 0 && ", idle gaps cut"}</span>}
        </span>
      </div>
      <div ref={scroller} className="min-h-0 flex-1 overflow-auto" tabIndex={0} role="region" aria-label="Runs, scrollable">
        {runs.length === 0 && <p className="text-soft px-3 py-6 text-center">No run is in this state now.</p>}
        <ul className="relative" style={{ height: virtual.getTotalSize() }}>
          {items.map((item) => {
            const run = runs[item.index];
            if (run === undefined) return null;
            return (
              <li
                key={run.id}
                aria-posinset={item.index + 1}
                aria-setsize={runs.length}
                ref={virtual.measureElement}
                data-index={item.index}
                className="absolute inset-x-0 top-0"
                style={{ transform: `translateY(${item.start}px)` }}
              >
                <Lane run={run} detail={details.get(run.id)} scale={scale} now={now} chosen={run.id === chosen} narrow={narrow} paused={paused} percents={percents} />
              </li>
            );
          })}
        </ul>
      </div>
    </section>
  );
}

/** What the colours of the bars mean, as far as they occur. */
function Legend({ states }: { states: ReadonlySet<string> }) {
  return (
    <span className="flex flex-wrap items-baseline gap-x-3">
      <span>Phases</span>
      {Object.entries(PHASE)
        .filter(([state]) => states.has(state))
        .map(([state, { tone, word }]) => (
          <span key={state} className="flex items-center gap-1 normal-case max-sm:hidden">
            <i className={`inline-block size-2.5 border-l-2 ${SEGMENT[tone]}`} aria-hidden="true" />
            {word}
          </span>
        ))}
    </span>
  );
}

/** Beside an open run the words need more room than the times. */
function columns(narrow: boolean): string {
  // A phone has room for a name and its state; the timeline takes what is left.
  const phone = "max-sm:grid-cols-[minmax(0,2fr)_minmax(0,1fr)]";
  return `${phone} ${narrow ? "grid-cols-[minmax(0,3fr)_minmax(0,2fr)]" : "grid-cols-[minmax(0,1fr)_minmax(0,1fr)]"}`;
}

interface LaneProps {
  run: Run;
  detail: RunDetail | undefined;
  scale: Axis;
  now: number;
  chosen: boolean;
  narrow: boolean;
  paused: boolean;
  /** Whether any lane has a percentage: then each leaves room for one, so that all share the time axis. */
  percents: boolean;
}

function hasPercent(run: Run): boolean {
  return typeof run.percent === "number" && !isRunOver(run.state);
}

function Lane({ run, detail, scale, now, chosen, narrow, paused, percents }: LaneProps) {
  const { why, stands } = laneWords(run, now, { narrow, paused });
  return (
    <Link
      from="/jobs/$id"
      to="."
      search={(old) => ({ ...old, run: chosen ? undefined : run.id, line: undefined })}
      replace={chosen}
      resetScroll={false}
      aria-current={chosen ? "true" : undefined}
      aria-label={`${run.server}: ${RUN[shownState(run)]?.word}`}
      data-row
      className={`border-line grid ${columns(narrow)} content-center border-b px-3 py-1.5 ${chosen ? "bg-accent-wash shadow-[inset_2px_0_0_var(--color-accent)]" : "hover:bg-hover"}`}
    >
      <div className="flex min-w-0 items-center gap-3">
        <span className="truncate font-medium">{run.server}</span>
        <RunStatus state={shownState(run)} />
      </div>
      {/* On a phone the words have the whole width below. */}
      <div className="text-soft col-start-1 row-start-2 min-w-0 text-xs max-sm:col-span-2">
        {why && (
          <p className="line-clamp-2" title={why}>
            {unbroken(why)}
          </p>
        )}
        <p className="truncate" title={stands}>
          {stands}
        </p>
      </div>
      <div className="col-start-2 row-start-1 flex min-w-0 items-center gap-3 pl-3 sm:row-span-2">
        <Timeline detail={detail} scale={scale} now={now} />
        {percents && <span className="mono w-10 shrink-0 text-right">{hasPercent(run) ? `${run.percent} %` : ""}</span>}
      </div>
    </Link>
  );
}

/** Whatever has a digit in it, such as a version or a change of one, stands on one line or on none: half of it would read as another. */
function unbroken(text: string): ReactNode {
  return text.split(NUMBERED).map((part, index) =>
    index % 2 === 1 ? (
      <span key={index} className="inline-block max-w-full wrap-anywhere">
        {part}
      </span>
    ) : (
      part
    ),
  );
}

const NUMBERED = /(\S*\d\S*(?: → \S*\d\S*)?)/;

interface LaneWords {
  /** What is awaited, or how it ended; may be empty. */
  why: string;
  /** The phase and since when, and who works on it. */
  stands: string;
}

/** Both in one line. */
export function laneText(run: Run, now: number, options: { narrow?: boolean; paused?: boolean }): string {
  const { why, stands } = laneWords(run, now, options);
  return [why, stands].filter((part) => part !== "").join(" · ");
}

/** What stands under the name, the cause apart: nothing is to take the room from it. */
export function laneWords(run: Run, now: number, { narrow = false, paused = false }: { narrow?: boolean; paused?: boolean }): LaneWords {
  const parts: string[] = [];
  const over = isRunOver(run.state);
  const phase = words(run.phase);
  if (over) {
    const took = run.finished_at ? duration(Date.parse(run.finished_at) - Date.parse(run.created_at)) : "";
    if (run.state === "succeeded" || run.state === "no_change") parts.push(took ? `done in ${took}` : "done");
    else parts.push(`${phase ? `in ${phase}` : "ended"}${took && ` after ${took}`}`);
  } else {
    parts.push(`${phase || RUN[shownState(run)]?.word} for ${duration(now - Date.parse(run.since))}`);
  }
  const why = withoutPercent(withoutName(run.detail, run.server), over ? undefined : run.percent) || words(run.reason);
  if (run.cancel_requested && !over) parts.push("cancel requested");
  if (run.executor_name && !narrow) parts.push(`on ${run.executor_name}`);
  const causes = [...(paused && run.state === "queued" ? ["the job is paused"] : []), ...(why ? [why.replace(/\.$/, "")] : [])];
  return { why: causes.join(" · "), stands: parts.join(" · ") };
}

const SEGMENT: Record<StatusTone, string> = {
  ok: "bg-ok/25 border-ok/60 text-ok",
  busy: "bg-info/25 border-info text-info",
  wait: "bg-warn/25 border-warn/70 text-warn",
  warn: "bg-warn/25 border-warn/70 text-warn",
  bad: "bg-bad/30 border-bad text-bad",
  off: "bg-line border-line-strong text-soft",
  go: "bg-info/25 border-info text-info",
  idle: "bg-line border-line-strong text-soft",
  odd: "bg-odd/25 border-odd text-odd",
};

function Timeline({ detail, scale, now }: { detail: RunDetail | undefined; scale: Axis; now: number }) {
  const phases = detail ? shownPhases(detail) : [];
  const text = phases.map((phase) => `${words(phase.phase)} ${PHASE[phase.state]?.word}, ${spent(phase, now)}`).join("; ");
  return (
    <div className="bg-sunk relative h-5 min-w-0 flex-1 overflow-hidden rounded-[3px]" role="img" aria-label={text || "no phase yet"}>
      {scale.cuts.map((cut) => (
        <i key={cut.at} className="border-line-strong absolute inset-y-0 border-l border-dashed" style={{ left: `${cut.at * 100}%` }} title={`${duration(cut.ms)} idle`} />
      ))}
      {phases.map((phase) => {
        const left = scale.at(Date.parse(phase.started_at));
        const right = scale.at(phase.finished_at ? Date.parse(phase.finished_at) : now);
        const width = Math.max(0.004, right - left);
        const tone = PHASE[phase.state]?.tone ?? "odd";
        return (
          <span
            key={phase.phase}
            title={`${words(phase.phase)}: ${PHASE[phase.state]?.word}, ${spent(phase, now)}`}
            className={`absolute inset-y-0 flex h-5 flex-wrap overflow-hidden border-l-2 text-[10px] leading-5 whitespace-nowrap ${SEGMENT[tone]}`}
            style={{ left: `${left * 100}%`, width: `${width * 100}%` }}
          >
            {/* A name that does not find room beside this wraps out of sight, whole. */}
            <i className="h-5 w-px" />
            <span className="text-ink px-1">{words(phase.phase)}</span>
          </span>
        );
      })}
    </div>
  );
}

export function spent(phase: { started_at: string; finished_at?: string | null }, now: number): string {
  const ms = (phase.finished_at ? Date.parse(phase.finished_at) : now) - Date.parse(phase.started_at);
  return phase.finished_at && ms < 10_000 ? `${(Math.max(0, ms) / 1000).toFixed(1)} s` : duration(ms);
}
