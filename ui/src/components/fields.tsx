/** Fields of forms. What is wrong with one stands below it and is read out with it. */
import { type InputHTMLAttributes, type ReactNode, useId } from "react";

import { REASON } from "../lib/job";

interface About {
  label: string;
  /** What belongs there. */
  hint?: string | undefined;
  /** What is wrong; takes the place of the hint. */
  problem?: string | undefined;
}

/** What an input says of its note. */
interface Described {
  "aria-invalid": true | undefined;
  "aria-describedby": string | undefined;
}

/** A label, its input, and the note below it. */
function Labelled({ label, hint, problem, place = "", children }: About & { place?: string | undefined; children: (described: Described) => ReactNode }) {
  const id = useId();
  const note = problem ?? hint;
  return (
    <div className={`flex flex-col gap-1 ${place}`}>
      <label className="flex flex-col gap-1">
        <span className="font-medium">{label}</span>
        {children({ "aria-invalid": problem !== undefined || undefined, "aria-describedby": note ? id : undefined })}
      </label>
      {note && (
        <span id={id} className={problem === undefined ? "text-faint text-xs" : "text-bad text-xs"}>
          {note}
        </span>
      )}
    </div>
  );
}

interface TextFieldProps extends About, Omit<InputHTMLAttributes<HTMLInputElement>, "value" | "onChange"> {
  value: string;
  set: (value: string) => void;
  /** Keys, addresses and commands. */
  mono?: boolean;
  /** Classes of the whole, such as its width. */
  place?: string | undefined;
}

export function TextField({ label, hint, problem, value, set, mono = false, place, className = "", ...rest }: TextFieldProps) {
  return (
    <Labelled label={label} hint={hint} problem={problem} place={place}>
      {(described) => (
        <input
          autoComplete="off"
          spellCheck={!mono}
          {...rest}
          {...described}
          className={`field ${mono ? "mono" : ""} ${className}`}
          value={value}
          onChange={(event) => set(event.target.value)}
        />
      )}
    </Labelled>
  );
}

interface SelectFieldProps<T extends string> extends About {
  value: T;
  set: (value: T) => void;
  /** Value → what people read. */
  options: readonly (readonly [T, string])[];
  place?: string | undefined;
}

export function SelectField<T extends string>({ label, hint, problem, value, set, options, place }: SelectFieldProps<T>) {
  return (
    <Labelled label={label} hint={hint} problem={problem} place={place}>
      {(described) => (
        <select
          {...described}
          className="field"
          value={value}
          onChange={(event) => {
            const chosen = options.find(([option]) => option === event.target.value);
            if (chosen) set(chosen[0]);
          }}
        >
          {options.map(([option, text]) => (
            <option key={option} value={option}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Labelled>
  );
}

export function CheckField({ label, checked, set }: { label: string; checked: boolean; set: (checked: boolean) => void }) {
  return (
    <label className="flex items-center gap-2">
      <input type="checkbox" className="accent-accent size-3.5" checked={checked} onChange={(event) => set(event.target.checked)} />
      <span>{label}</span>
    </label>
  );
}

/** Why something is done; the audit keeps it. */
export function ReasonField({ value, set, problem }: { value: string; set: (value: string) => void; problem?: string | undefined }) {
  return (
    <Labelled label="Reason" problem={problem}>
      {(described) => (
        <textarea
          {...described}
          className="field"
          rows={3}
          maxLength={REASON.max}
          required
          placeholder={`Why this is done; the audit keeps it (at least ${REASON.min} characters)`}
          value={value}
          onChange={(event) => set(event.target.value)}
        />
      )}
    </Labelled>
  );
}
