/**
 * Status by shape, word and colour: each tone has its own shape, so none depends on colour alone. The word stands on
 * the baseline of its line; the shape in its middle.
 */
import type { ExecutorState, StatusTone } from "./tones";
import { EXECUTOR, HEALTH, JOB, PHASE, POWER, RUN } from "./tones";

const COLOUR: Record<StatusTone, string> = {
  ok: "text-ok",
  busy: "text-info",
  wait: "text-warn",
  warn: "text-warn",
  bad: "text-bad",
  off: "text-faint",
  idle: "text-faint",
  odd: "text-odd",
  go: "text-info",
};

export function Shape({ tone, size = 14 }: { tone: StatusTone; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 16 16" fill="none" aria-hidden="true" className={`shrink-0 self-center ${COLOUR[tone]}`}>
      {tone === "ok" && (
        <>
          <circle cx="8" cy="8" r="6.5" fill="currentColor" />
          <path d="m5 8.2 2.1 2.1L11.2 6" stroke="var(--color-base)" strokeWidth="1.7" />
        </>
      )}
      {tone === "busy" && (
        <>
          <circle cx="8" cy="8" r="6" stroke="currentColor" strokeOpacity=".28" strokeWidth="2" />
          <path className="turns" d="M8 2a6 6 0 0 1 6 6" stroke="currentColor" strokeWidth="2" />
        </>
      )}
      {tone === "wait" && (
        <>
          <circle cx="8" cy="8" r="6" stroke="currentColor" strokeWidth="1.6" />
          <path d="M8 4.6V8l2.4 1.6" stroke="currentColor" strokeWidth="1.5" />
        </>
      )}
      {tone === "warn" && (
        <>
          <path d="M8 1.8 15 14H1z" fill="currentColor" />
          <path d="M8 6.4v3.4M8 11.2v1.2" stroke="var(--color-base)" strokeWidth="1.5" />
        </>
      )}
      {tone === "bad" && (
        <>
          <path d="M5 1.5h6L14.5 5v6L11 14.5H5L1.5 11V5z" fill="currentColor" />
          <path d="m5.6 5.6 4.8 4.8m0-4.8-4.8 4.8" stroke="var(--color-base)" strokeWidth="1.6" />
        </>
      )}
      {tone === "off" && <circle cx="8" cy="8" r="5.6" stroke="currentColor" strokeWidth="1.8" />}
      {tone === "idle" && <circle cx="8" cy="8" r="5.8" stroke="currentColor" strokeWidth="1.5" strokeDasharray="2.4 2.2" />}
      {tone === "go" && (
        <>
          <circle cx="8" cy="8" r="6" stroke="currentColor" strokeWidth="1.5" />
          <path d="M4.8 8h6M8.2 5.4 10.8 8l-2.6 2.6" stroke="currentColor" strokeWidth="1.5" />
        </>
      )}
      {tone === "odd" && (
        <>
          <rect x="2" y="2" width="12" height="12" rx="2" fill="currentColor" />
          <path d="M6 6.4C6 5 7 4.4 8 4.4s2 .7 2 1.9C10 7.8 8 7.9 8 9.4M8 10.7v1.4" stroke="var(--color-base)" strokeWidth="1.4" />
        </>
      )}
    </svg>
  );
}

export function Status({ tone, word, title }: { tone: StatusTone; word: string; title?: string }) {
  return (
    <span className={`inline-flex items-baseline gap-1.5 whitespace-nowrap ${COLOUR[tone]}`} title={title}>
      <Shape tone={tone} />
      {word}
    </span>
  );
}

type Look = { tone: StatusTone; word: string };
const pick = (table: Record<string, Look>, key: string): Look => table[key] ?? { tone: "odd", word: key };

export const JobStatus = ({ state }: { state: string }) => <Status {...pick(JOB, state)} />;
export const RunStatus = ({ state }: { state: string }) => <Status {...pick(RUN, state)} />;
export const PowerStatus = ({ state }: { state: string }) => <Status {...pick(POWER, state)} />;
export const HealthStatus = ({ state }: { state: string }) => <Status {...pick(HEALTH, state)} />;
export const PhaseStatus = ({ state }: { state: string }) => <Status {...pick(PHASE, state)} />;
export const ExecutorStatus = ({ state }: { state: ExecutorState }) => <Status {...pick(EXECUTOR, state)} />;
