/** How many servers at once, and when a job stops itself. */
import { inRange, LIMITS } from "../lib/job";
import { TextField } from "./fields";

export interface Pace {
  parallel: string;
  pauseAfter: string;
}

export function PaceFields({ pace, set }: { pace: Pace; set: (pace: Pace) => void }) {
  const wrong = (value: string, limits: { min: number; max: number }, text: string): string | undefined => (inRange(value, limits) ? undefined : text);
  return (
    <div className="flex flex-wrap gap-x-6 gap-y-3">
      <TextField
        label="Max. in parallel"
        className="w-28"
        inputMode="numeric"
        value={pace.parallel}
        set={(parallel) => set({ ...pace, parallel })}
        hint="1 to 1000 servers"
        problem={wrong(pace.parallel, LIMITS.parallel, "1 to 1000 servers")}
      />
      <TextField
        label="Pause after failures"
        className="w-28"
        inputMode="numeric"
        value={pace.pauseAfter}
        set={(pauseAfter) => set({ ...pace, pauseAfter })}
        hint="0 never pauses"
        problem={wrong(pace.pauseAfter, LIMITS.pauseAfter, "0 to 1000; 0 never pauses")}
      />
    </div>
  );
}
