/** A command to type in a shell, and a button that copies it. */
import { useState } from "react";

import { Button } from "./ui";

export function Command({ text, label }: { text: string; label: string }) {
  const [said, setSaid] = useState("");
  // Without a secure context the browser gives no clipboard; the text is selected by a click all the same.
  const copy = (): void => {
    Promise.resolve(navigator.clipboard?.writeText(text) ?? Promise.reject(new Error("no clipboard"))).then(
      () => setSaid("Copied"),
      () => setSaid("Not copied: select the text and copy it."),
    );
  };
  return (
    <div className="flex flex-col gap-1 text-left">
      <div className="border-line bg-sunk flex items-start gap-2 rounded-md border py-1.5 pr-1.5 pl-3">
        <pre className="mono min-w-0 flex-1 overflow-x-auto py-1 select-all" tabIndex={0} aria-label={label}>
          {text}
        </pre>
        <Button className="h-6! px-2! text-xs" aria-label={`Copy: ${label}`} onClick={copy}>
          Copy
        </Button>
      </div>
      <span role="status" className="text-soft text-xs empty:hidden">
        {said}
      </span>
    </div>
  );
}
