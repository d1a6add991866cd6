/** Small building blocks: buttons that say why they are disabled, problems, empty and loading states. */
import { Link } from "@tanstack/react-router";
import { type ComponentProps, type ReactNode, useEffect, useId, useState, useSyncExternalStore } from "react";

import { ApiError, beyondTitle, fieldTexts, isPassing, Unreachable } from "../api/problem";
import { serverNow } from "../lib/clock";
import { age, clock, duration } from "../lib/format";
import { Reason } from "./Reason";
import { Shape } from "./Status";

export type Look = "plain" | "primary" | "danger" | "quiet" | "small" | "sign" | "link";
const LOOK: Record<Look, string> = {
  plain: "btn",
  primary: "btn btn-primary",
  danger: "btn btn-danger",
  quiet: "btn btn-quiet",
  small: "btn btn-small",
  sign: "px-0.5 text-soft hover:text-bad aria-disabled:cursor-not-allowed aria-disabled:text-faint",
  link: "link text-soft text-xs aria-disabled:no-underline aria-disabled:cursor-not-allowed",
};

interface ButtonProps extends Omit<ComponentProps<"button">, "disabled"> {
  look?: Look;
  /** Why it cannot be used; it stays focusable, so that the reason can be read. */
  blocked?: string;
  busy?: boolean;
  /** Shows the reason beside the button instead of as a tooltip only. */
  explain?: boolean;
}

/** What a busy button answers to those who ask why it does nothing. */
const BUSY = "In progress: the answer has not come yet.";

export function Button({ look = "plain", blocked, busy = false, explain = false, className = "", onClick, children, type = "button", ...rest }: ButtonProps) {
  const id = useId();
  const why = blocked ?? (busy ? BUSY : undefined);
  // The button is one and the same element whether it is blocked or not: it keeps the focus.
  return (
    <>
      <button
        {...rest}
        type={type}
        className={`${LOOK[look]} ${className}`}
        aria-disabled={why !== undefined || undefined}
        aria-busy={busy || undefined}
        aria-describedby={blocked ? id : rest["aria-describedby"]}
        title={why ?? rest.title}
        onClick={(event) => {
          if (why !== undefined) event.preventDefault();
          else onClick?.(event);
        }}
      >
        {children}
      </button>
      {blocked !== undefined &&
        (explain ? (
          <span id={id} className="text-soft max-w-md text-xs">
            {blocked}
          </span>
        ) : (
          <Reason id={id} text={blocked} />
        ))}
    </>
  );
}

/** One timer for every age on the screen. */
let second = Math.floor(Date.now() / 1000);
const tickers = new Set<() => void>();
function tick(listener: () => void): () => void {
  tickers.add(listener);
  return () => tickers.delete(listener);
}
if (typeof window !== "undefined") {
  setInterval(() => {
    second = Math.floor(Date.now() / 1000);
    for (const listener of tickers) listener();
  }, 1000);
}

/** The server's time, once a second. */
export function useNow(): number {
  useSyncExternalStore(tick, () => second);
  return serverNow();
}

/** "12 s ago", with the exact time as tooltip; warns by word and colour past `staleMs`. */
export function Age({ at, staleMs, never = "never" }: { at: string | null | undefined; staleMs?: number; never?: string }) {
  const now = useNow();
  if (!at) return <span className="text-faint">{never}</span>;
  const stale = staleMs !== undefined && now - Date.parse(at) > staleMs;
  return (
    <time dateTime={at} title={clock(at, 0)} className={stale ? "text-warn inline-flex items-center gap-1.5" : "text-soft"}>
      {stale && <Shape tone="warn" size={12} />}
      {age(at, now)}
      {stale && <span className="sr-only">, stale</span>}
    </time>
  );
}

/** "for 12 s": how long something has been so. */
export function For({ since }: { since: string }) {
  const now = useNow();
  return (
    <time dateTime={since} title={clock(since, 0)} className="text-soft">
      for {duration(now - Date.parse(since))}
    </time>
  );
}

interface ProblemNoteProps {
  error: unknown;
  retry?: (() => void) | undefined;
  /** What did not work: "The job was not planned". */
  what?: string | undefined;
  /** Whether the title stands above already. */
  headed?: boolean;
  /** Where else to go. */
  leave?: ReactNode;
}

export function ProblemNote({ error, retry, what, headed = false, leave }: ProblemNoteProps) {
  const problem = error instanceof ApiError ? error.problem : undefined;
  const fields = problem ? fieldTexts(problem) : [];
  const detail = problem ? beyondTitle(problem) : error instanceof Error ? error.message : String(error);
  return (
    <div role="alert" className="border-bad/40 bg-bad-wash text-ink rounded-md border px-3 py-2.5">
      {!headed && (
        <p className="font-medium">
          {[what, problem?.title ?? (error instanceof Unreachable ? "No answer" : what ? undefined : "This did not work")].filter(Boolean).join(": ")}
        </p>
      )}
      {/* The detail would say the fields again. */}
      {fields.length === 0 && detail !== "" && <p className="mt-0.5">{detail}</p>}
      {fields.length > 0 && (
        <ul className="mt-1.5 list-disc pl-5">
          {fields.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
      <p className="text-soft mt-1.5 flex flex-wrap items-center gap-x-4 gap-y-1 text-xs">
        {leave}
        {problem?.needs_role && !problem.detail.includes(problem.needs_role) && <span>Requires the role {problem.needs_role}</span>}
        {problem?.code && (
          <a className="link" href={`/errors/${encodeURIComponent(problem.code)}`} target="_blank" rel="noreferrer">
            {problem.code}: what to do
          </a>
        )}
        {problem?.trace_id && (
          <span>
            trace <code className="mono select-all">{problem.trace_id}</code>
          </span>
        )}
        {retry && (
          <button type="button" className="link" onClick={retry}>
            Try again
          </button>
        )}
      </p>
    </div>
  );
}

/** A page whose subject could not be read at all; `list` leads to what can be. */
export function Unread({ what, error, retry, list }: { what: string; error: unknown; retry: () => void; list: ReactNode }) {
  return (
    <div className="max-w-2xl">
      <PageHead title={what} />
      <ProblemNote error={error} retry={isPassing(error) ? retry : undefined} leave={list} />
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="flex flex-col items-center gap-2 px-6 py-14 text-center">
      <svg width="40" height="34" viewBox="0 0 40 34" fill="none" aria-hidden="true" className="text-line-strong">
        <rect x="1" y="1" width="38" height="9" rx="2" stroke="currentColor" strokeWidth="1.5" />
        <rect x="1" y="12.5" width="38" height="9" rx="2" stroke="currentColor" strokeWidth="1.5" strokeDasharray="3 3" />
        <rect x="1" y="24" width="38" height="9" rx="2" stroke="currentColor" strokeWidth="1.5" strokeDasharray="3 3" />
        <circle cx="6" cy="5.5" r="1.5" fill="currentColor" />
      </svg>
      <h2 className="font-medium">{title}</h2>
      <div className="text-soft max-w-md">{children}</div>
    </div>
  );
}

/** Says what is awaited; shown only after a moment, so that fast answers do not flicker. */
export function Loading({ what }: { what: string }) {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 250);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p role="status" className="text-soft px-4 py-8 text-center">
      {late ? `Reading ${what}…` : "\u00a0"}
    </p>
  );
}

/** Names the browser's tab after the page. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Rackhand`;
  }, [title]);
}

export function PageHead({ title, meta, actions }: { title: string; meta?: ReactNode; actions?: ReactNode }) {
  useTitle(title);
  return (
    <div className="flex flex-wrap items-end justify-between gap-x-6 gap-y-3 pb-4">
      <div className="min-w-0">
        <h1 className="text-[22px] leading-tight font-medium tracking-tight">{title}</h1>
        {meta && <div className="text-soft mt-1 flex flex-wrap items-center gap-x-3 gap-y-1">{meta}</div>}
      </div>
      {actions && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
    </div>
  );
}

export function Facts({ rows }: { rows: [string, ReactNode][] }) {
  return (
    <dl>
      {rows.map(([name, value]) => (
        <div key={name} className="border-line flex min-h-8 gap-3 border-b px-3 py-1.5 last:border-b-0">
          <dt className="eyebrow w-32 shrink-0 pt-px">{name}</dt>
          <dd className="min-w-0 flex-1 break-words">{value}</dd>
        </div>
      ))}
    </dl>
  );
}

interface PanelProps {
  title: string;
  /** The title is a name, which keeps its case. */
  named?: boolean;
  aside?: ReactNode;
  children: ReactNode;
  id?: string;
}

export function Panel({ title, named = false, aside, children, id }: PanelProps) {
  const own = useId();
  return (
    <section className="panel" aria-labelledby={id ?? own}>
      <div className="border-line bg-raised flex min-h-9 items-center justify-between gap-3 border-b px-3">
        <h2 id={id ?? own} className={named ? "font-medium" : "eyebrow"}>
          {title}
        </h2>
        {aside && <div className="text-soft text-xs">{aside}</div>}
      </div>
      {children}
    </section>
  );
}

export const None = () => <span className="text-faint">–</span>;

/** A link to a job, short. */
export function JobLink({ id, children }: { id: string; children?: ReactNode }) {
  return (
    <Link to="/jobs/$id" params={{ id }} className="link">
      {children ?? <span className="mono">{id.slice(-8)}</span>}
    </Link>
  );
}
