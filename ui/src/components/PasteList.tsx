/** Fills a form from a list that someone has as JSON: a dialog that shows what such a list looks like. */
import { type ReactNode, useId, useState } from "react";

import { FormDialog } from "./FormDialog";

interface Props<T> {
  /** "servers". */
  of: string;
  /** Where such a list comes from. */
  note: ReactNode;
  example: string;
  /** Throws what is wrong with it. */
  parse: (text: string) => T;
  use: (list: T) => void;
}

export function PasteList<T>({ of, note, example, parse, use }: Props<T>) {
  const [text, setText] = useState("");
  const id = useId();
  return (
    <FormDialog
      label="Paste a list…"
      look="quiet"
      title={`Paste a list of ${of}`}
      note={<>{note} It replaces what stands in the form.</>}
      send="Use this list"
      wrong={text.trim() === "" ? "Paste a list first." : undefined}
      failed="This list cannot be used"
      wide
      act={async () => parse(text)}
      done={use}
    >
      <label className="flex flex-col gap-1">
        <span className="font-medium">List of {of} as JSON</span>
        <textarea className="field mono min-h-40 w-full" spellCheck={false} aria-describedby={id} value={text} onChange={(event) => setText(event.target.value)} />
      </label>
      <div id={id} className="flex flex-col gap-1">
        <span className="text-soft">It looks like this:</span>
        <pre className="mono bg-sunk border-line max-h-44 overflow-auto rounded border px-2 py-1.5 break-all whitespace-pre-wrap select-all" tabIndex={0} aria-label={`Example of a list of ${of}`} role="region">
          {example}
        </pre>
      </div>
    </FormDialog>
  );
}
