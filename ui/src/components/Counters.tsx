/** How many runs are in each state: a bar, and words with shapes beside it. */
import { number } from "../lib/format";
import { Shape } from "./Status";
import { BAR, RUN, RUN_ORDER } from "./tones";

interface Props {
  runs: Record<string, number>;
  total: number;
  compact?: boolean;
  only?: string;
  /** Makes each counter a filter. */
  choose?: (state: string | undefined) => void;
}

const BAR_ORDER = ["succeeded", "no_change", "failed", "unknown", "cancelled", "running", "leased", "settling", "waiting", "queued"];

export function Counters({ runs, total, compact = false, only, choose }: Props) {
  const present = RUN_ORDER.filter((state) => (runs[state] ?? 0) > 0);
  const done = ["succeeded", "no_change", "failed", "cancelled", "unknown"].reduce((sum, state) => sum + (runs[state] ?? 0), 0);
  const all = Object.values(runs).reduce((sum, n) => sum + n, 0) || total;
  const bar = (
    <div className="bg-line flex h-1.5 w-full gap-px overflow-hidden rounded-full" aria-hidden="true">
      {BAR_ORDER.map((state) => {
        const n = runs[state] ?? 0;
        const look = RUN[state];
        if (n === 0 || look === undefined) return null;
        return <div key={state} className={`${BAR[look.tone]} ${state === "queued" ? "opacity-40" : ""}`} style={{ width: `${(100 * n) / all}%` }} />;
      })}
    </div>
  );
  if (compact) {
    return (
      <div className="flex items-center gap-2">
        {bar}
        <span className="mono text-soft shrink-0">
          {number(done)}/{number(all)}
        </span>
      </div>
    );
  }
  return (
    <div className="flex flex-col gap-2">
      {bar}
      <ul className="flex flex-wrap gap-1.5" aria-label="Runs by state">
        {present.map((state) => {
          const look = RUN[state];
          if (look === undefined) return null;
          const text = (
            <>
              <Shape tone={look.tone} />
              <span className="font-medium">{number(runs[state] ?? 0)}</span> {look.word}
            </>
          );
          return (
            <li key={state}>
              {choose ? (
                <button
                  type="button"
                  aria-pressed={only === state}
                  onClick={() => choose(only === state ? undefined : state)}
                  className={`border-line hover:bg-hover inline-flex h-7 items-center gap-1.5 rounded-[5px] border px-2 ${only === state ? "bg-accent-wash border-accent!" : ""}`}
                >
                  {text}
                </button>
              ) : (
                <span className="border-line inline-flex h-7 items-center gap-1.5 rounded-[5px] border px-2">{text}</span>
              )}
            </li>
          );
        })}
      </ul>
    </div>
  );
}
