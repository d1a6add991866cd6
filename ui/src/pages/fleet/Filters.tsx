import { useEffect, useState } from "react";

import type { ServerList } from "../../api/types";
import { byNumber, generation as generationName, number, words } from "../../lib/format";
import { type FleetFilter, HEALTH, POWER } from "../../lib/search";

interface Props {
  filter: FleetFilter;
  counts: ServerList["counts"] | undefined;
  change: (change: Partial<FleetFilter>) => void;
}

export function FleetFilters({ filter, counts, change }: Props) {
  const generations = [...new Set([...Object.keys(counts?.generation ?? {}), ...(filter.generation ? [filter.generation] : [])])]
    .filter((name) => name !== "" && name !== "unknown")
    .sort(byNumber);
  const active = (["q", "power", "health", "generation", "model", "tag"] as const).filter((key) => filter[key] !== undefined);
  return (
    <search className="flex shrink-0 flex-wrap items-center gap-2 pb-1">
      <TextFilter label="Search" placeholder="Name, service tag or model" value={filter.q} set={(q) => change({ q })} wide />
      <Choice label="Power" value={filter.power} options={POWER} counts={counts?.power} set={(power) => change({ power })} />
      <Choice label="Health" value={filter.health} options={HEALTH} counts={counts?.health} set={(health) => change({ health })} />
      <Choice
        label="BMC"
        value={filter.generation}
        options={generations}
        counts={counts?.generation}
        name={generationName}
        set={(generation) => change({ generation })}
      />
      <TextFilter label="Model" placeholder="Model" value={filter.model} set={(model) => change({ model })} />
      <TextFilter label="Tag" placeholder="Tag" value={filter.tag} set={(tag) => change({ tag })} />
      {active.length > 0 && (
        <button
          type="button"
          className="link px-1"
          onClick={() => change({ q: undefined, power: undefined, health: undefined, generation: undefined, model: undefined, tag: undefined })}
        >
          Clear {active.length === 1 ? "filter" : `${active.length} filters`}
        </button>
      )}
    </search>
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  value: T | undefined;
  options: readonly T[];
  counts: Record<string, number> | undefined;
  name?: (value: string) => string;
  set: (value: T | undefined) => void;
}

function Choice<T extends string>({ label, value, options, counts, name = words, set }: ChoiceProps<T>) {
  return (
    <label className="relative">
      <span className="sr-only">{label}</span>
      <select
        className={`field ${value ? "border-accent! text-accent" : ""}`}
        value={value ?? ""}
        onChange={(event) => set(options.find((option) => option === event.target.value))}
      >
        <option value="">{label}: any</option>
        {options.map((option) => {
          const n = counts?.[option];
          return (
            <option key={option} value={option}>
              {`${label}: ${name(option)}${n === undefined ? "" : ` (${number(n)})`}`}
            </option>
          );
        })}
      </select>
    </label>
  );
}

interface TextFilterProps {
  label: string;
  placeholder: string;
  value: string | undefined;
  set: (value: string | undefined) => void;
  wide?: boolean;
}

/** Writes to the URL a moment after the last key, at once on Enter. */
function TextFilter({ label, placeholder, value, set, wide = false }: TextFilterProps) {
  const [text, setText] = useState(value ?? "");
  const [written, setWritten] = useState(value);
  if (written !== value) {
    // The URL changed from elsewhere (back button, a clicked tag).
    setWritten(value);
    if ((value ?? "") !== text.trim()) setText(value ?? "");
  }
  const next = text.trim() === "" ? undefined : text.trim();
  useEffect(() => {
    if (next === value) return;
    const timer = setTimeout(() => set(next), 250);
    return () => clearTimeout(timer);
  });
  return (
    <label>
      <span className="sr-only">{label}</span>
      <input
        type="search"
        className={`field ${wide ? "w-64" : "w-28"} ${value ? "border-accent!" : ""}`}
        placeholder={placeholder}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => event.key === "Enter" && set(next)}
      />
    </label>
  );
}
