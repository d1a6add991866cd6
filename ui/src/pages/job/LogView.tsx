/**
 * The live log of one run. Virtualised; earlier lines are there on opening; the tail is followed until
 * people scroll up; each line has a link of its own; search counts the true matches.
 */
import { Link } from "@tanstack/react-router";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef, useState } from "react";

import type { Event, Level } from "../../api/types";
import { Button, ProblemNote } from "../../components/ui";
import { count, logClock, number } from "../../lib/format";
import type { LogState } from "../../live/log";

interface Props {
  run: string;
  log: LogState & { retry: () => void };
  server: string;
  /** Cursor of the line to show. */
  line: string | undefined;
  over: boolean;
}

const NEAR_END = 24;

export function LogView({ run, log, server, line, over }: Props) {
  const [search, setSearch] = useState("");
  const [match, setMatch] = useState(0);
  const [follow, setFollow] = useState(line === undefined);
  const [seen, setSeen] = useState(0);
  const scroller = useRef<HTMLDivElement>(null);
  const byHand = useRef(false);
  const shownLine = useRef<string | undefined>(undefined);

  const virtual = useVirtualizer({
    count: log.items.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 20,
    overscan: 20,
    getItemKey: (index) => log.items[index]?.cursor ?? index,
  });

  const needle = search.trim().toLowerCase();
  const matches = useMemo(
    () => (needle === "" ? [] : log.items.flatMap((event, index) => (text(event).toLowerCase().includes(needle) ? [index] : []))),
    [needle, log.items],
  );
  const current = matches.length === 0 ? undefined : matches[Math.min(match, matches.length - 1)];

  useEffect(() => {
    if (follow && log.items.length > 0) {
      virtual.scrollToIndex(log.items.length - 1, { align: "end" });
    }
    // Lines read on opening are not new ones.
    if (follow || !log.complete) setSeen(log.items.length);
  }, [follow, log.items.length, log.complete, virtual]);

  useEffect(() => {
    if (line === undefined || shownLine.current === line) return;
    const index = log.items.findIndex((event) => event.cursor === line);
    if (index < 0) return;
    shownLine.current = line;
    byHand.current = false;
    setFollow(false);
    virtual.scrollToIndex(index, { align: "center" });
  }, [line, log.items, virtual]);

  useEffect(() => {
    if (current === undefined) return;
    byHand.current = false;
    setFollow(false);
    virtual.scrollToIndex(current, { align: "center" });
  }, [current, virtual]);

  const atEnd = (): boolean => {
    const box = scroller.current;
    return box !== null && box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END;
  };
  /** People scroll; only then does reaching the end mean that they want to follow it. */
  const handScroll = (away: boolean): void => {
    byHand.current = true;
    if (away) setFollow(false);
  };
  const unseen = Math.max(0, log.items.length - seen);

  return (
    <div className="flex min-h-64 flex-1 flex-col">
      <div className="border-line flex flex-wrap items-center gap-2 border-b px-3 py-1.5">
        <h3 className="eyebrow pr-1">Log</h3>
        <label>
          <span className="sr-only">Search the log</span>
          <input
            type="search"
            className="field h-6! w-44 text-xs!"
            placeholder="Search"
            value={search}
            onChange={(event) => {
              setSearch(event.target.value);
              setMatch(0);
            }}
            onKeyDown={(event) => {
              if (event.key !== "Enter" || matches.length === 0) return;
              setMatch((old) => (old + (event.shiftKey ? matches.length - 1 : 1)) % matches.length);
            }}
          />
        </label>
        {needle !== "" && (
          <span role="status" className="text-soft text-xs">
            {matches.length === 0 ? "no match" : `${number(Math.min(match, matches.length - 1) + 1)} of ${count(matches.length, "match", "matches")}`}
          </span>
        )}
        <span className="text-soft ml-auto flex items-center gap-3 text-xs">
          <span>
            {count(log.items.length, "line")}
            {!log.complete && ", reading on"}
          </span>
          <Button look="link" blocked={log.items.length === 0 ? "There is no line to download yet." : undefined} onClick={() => download(log.items, server)}>
            Download
          </Button>
        </span>
      </div>
      {log.error !== undefined && <ProblemNote error={log.error} what="The log is out of date" retry={log.retry} />}
      <div className="bg-sunk relative min-h-0 flex-1">
        <div
          ref={scroller}
          className="absolute inset-0 overflow-auto py-1"
          tabIndex={0}
          role="log"
          aria-live="off"
          aria-label={`Log of ${server}`}
          onScroll={() => byHand.current && atEnd() && setFollow(true)}
          onWheel={(event) => handScroll(event.deltaY < 0)}
          onTouchMove={() => handScroll(!atEnd())}
          onMouseDown={(event) => event.target === event.currentTarget && handScroll(!atEnd())}
          onKeyDown={(event) => handScroll(["ArrowUp", "PageUp", "Home"].includes(event.key))}
        >
          {log.items.length === 0 && <p className="text-soft px-3 py-6 text-center">{log.complete ? "No line yet." : "Reading the log…"}</p>}
          <div className="relative" style={{ height: virtual.getTotalSize() }}>
            {virtual.getVirtualItems().map((item) => {
              const event = log.items[item.index];
              if (event === undefined) return null;
              const tone = item.index === current || event.cursor === line ? "bg-accent-wash" : "hover:bg-hover";
              return (
                <div
                  key={item.key}
                  ref={virtual.measureElement}
                  data-index={item.index}
                  className={`mono absolute inset-x-0 top-0 flex gap-3 px-3 leading-5 ${tone}`}
                  style={{ transform: `translateY(${item.start}px)` }}
                >
                  <Link
                    from="/jobs/$id"
                    to="."
                    search={(old) => ({ ...old, run, line: event.cursor })}
                    replace
                    resetScroll={false}
                    aria-label={`Link to line ${item.index + 1}`}
                    className="text-faint hover:text-accent shrink-0 hover:underline"
                  >
                    {logClock(event.at)}
                  </Link>
                  <span className={`min-w-0 flex-1 break-words whitespace-pre-wrap ${LEVEL[event.level]}`}>{text(event)}</span>
                </div>
              );
            })}
          </div>
        </div>
        {!follow && (
          <button
            type="button"
            className="btn absolute right-4 bottom-3 h-7! text-xs! shadow-md"
            onClick={() => {
              setFollow(true);
              setSearch("");
            }}
          >
            {unseen > 0 && !over ? `${count(unseen, "new line")} ↓` : over ? "To the end ↓" : "Follow the tail ↓"}
          </button>
        )}
      </div>
    </div>
  );
}

const LEVEL: Record<Level, string> = { debug: "text-faint", info: "text-ink", warn: "text-warn", error: "text-bad" };

/** One line as shown, searched and downloaded. */
function text(event: Event): string {
  const level = event.level === "warn" ? "warning: " : event.level === "error" ? "error: " : "";
  const late = event.late ? " (late)" : "";
  return event.kind === "run.log" ? `${level}${event.message}${late}` : `${level}» ${event.message}${late}`;
}

function download(items: Event[], server: string): void {
  const lines = items.map((event) => `${event.at} ${event.level.padEnd(5)} ${event.kind} ${event.message}\n`);
  const url = URL.createObjectURL(new Blob(lines, { type: "text/plain" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${server.replaceAll(/[^\w.-]+/g, "_")}.log`;
  link.click();
  URL.revokeObjectURL(url);
}
