/** Events, the newest first, as they happen; older ones on request. */
import { Link } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";

import type { Event } from "../api/types";
import { clock, withoutName } from "../lib/format";
import { useEventLog } from "../live/log";
import type { EventFilter } from "../live/stream";
import { Button, Empty, ProblemNote, useNow } from "./ui";

/** How many events, log lines included, are read at once. */
const NEWEST = 200;
/** Where log lines fill what has been read, this many times more is read without being requested. */
const FILL = { rows: 20, rounds: 4 };

interface Fleet {
  siteName: (id: string) => string;
  /** Undefined where it is not known here. */
  serverName: (id: string) => string | undefined;
}

interface Props {
  /** Give the component a `key` when this changes. */
  filter: EventFilter;
  /** Also the lines of the runs' logs, which stand on the page of their job. */
  lines?: boolean;
  /** The server whose page this is: messages leave its name out. */
  name?: string;
  /** Given where events of many servers are listed: where each was, and who did it. */
  fleet?: Fleet | undefined;
  place?: string;
}

export function EventList({ filter, lines = false, name, fleet, place = "" }: Props) {
  const log = useEventLog(filter, { newest: NEWEST });
  const now = useNow();
  const [loading, setLoading] = useState(false);
  const rounds = useRef(0);
  const shown = lines ? log.items.toReversed() : log.items.filter((event) => event.kind !== "run.log").reverse();
  const older = async (): Promise<void> => {
    setLoading(true);
    await log.loadOlder();
    setLoading(false);
  };
  const sparse = log.complete && log.older && log.error === undefined && shown.length < FILL.rows;
  useEffect(() => {
    if (!sparse || loading || rounds.current >= FILL.rounds) return;
    rounds.current += 1;
    void older();
  });
  return (
    <>
      {log.error !== undefined && (
        <div className="p-3">
          <ProblemNote error={log.error} what="The events cannot be read" retry={log.retry} />
        </div>
      )}
      {!log.complete && log.error === undefined && <p className="text-soft p-3">Reading the events…</p>}
      {log.complete && shown.length === 0 && !log.older && <Empty title="Nothing has happened yet" />}
      {(shown.length > 0 || log.older) && (
        <div className={place} tabIndex={0} role="region" aria-label="Events, scrollable">
          <ul>
            {shown.map((event) => (
              <Row key={event.cursor} event={event} name={name} fleet={fleet} now={now} />
            ))}
          </ul>
          {log.older && (
            <div className="p-2 text-center">
              <Button busy={loading} onClick={() => void older()}>
                {loading ? "Reading…" : "Show older events"}
              </Button>
            </div>
          )}
        </div>
      )}
    </>
  );
}

interface RowProps {
  event: Event;
  name: string | undefined;
  fleet: Fleet | undefined;
  now: number;
}

function Row({ event, name, fleet, now }: RowProps) {
  const message = name === undefined ? event.message : withoutName(event.message, name);
  const grid = fleet ? "grid-cols-[140px_150px_minmax(0,1fr)_150px_160px]" : "grid-cols-[130px_150px_minmax(0,1fr)_auto]";
  return (
    <li data-row className={`border-line grid ${grid} items-baseline gap-3 border-b px-3 py-1.5 last:border-b-0 max-lg:grid-cols-[130px_minmax(0,1fr)] max-md:grid-cols-1 max-md:gap-0.5`}>
      <time dateTime={event.at} className="mono text-soft">
        {clock(event.at, now)}
      </time>
      <span className="mono text-faint wrap-anywhere max-lg:hidden">{event.kind}</span>
      <span className={`min-w-0 break-words ${event.level === "error" ? "text-bad" : event.level === "warn" ? "text-warn" : ""}`}>
        {event.level === "error" || event.level === "warn" ? `${event.level}: ` : ""}
        {message}
        {event.late && <span className="text-faint"> (late)</span>}
      </span>
      {fleet && (
        <span className="text-soft text-xs wrap-anywhere max-lg:col-start-2 max-md:col-start-1">
          {event.actor}
          {event.site_id && <> · {fleet.siteName(event.site_id)}</>}
        </span>
      )}
      <span className={`flex gap-3 text-xs ${fleet ? "max-lg:col-start-2 max-md:col-start-1" : "max-lg:hidden"}`}>
        {event.job_id && (
          <Link to="/jobs/$id" params={{ id: event.job_id }} search={event.run_id ? { run: event.run_id } : {}} className="link text-soft" aria-label={`${event.run_id ? "Run" : "Job"} of: ${event.message}`}>
            {event.run_id ? "run" : "job"}
          </Link>
        )}
        {fleet && event.server_id && (
          <Link to="/servers/$id" params={{ id: event.server_id }} className="link text-soft min-w-0 wrap-anywhere" aria-label={`Server of: ${event.message}`}>
            {fleet.serverName(event.server_id) ?? "server"}
          </Link>
        )}
      </span>
    </li>
  );
}
