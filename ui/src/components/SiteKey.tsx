/**
 * A site's public key and whether someone has compared it. Passwords are sealed to it, so whoever can swap it reads
 * them. The page itself comes from the control plane: `rackhand credentials set --site-key` compares once more.
 */
import { useEffect, useState } from "react";

import type { Site } from "../api/types";
import { clock } from "../lib/format";
import { compareKey, fingerprint, remember, remembered } from "../lib/siteKey";
import { FormDialog } from "./FormDialog";
import { Status } from "./Status";

/** The fingerprint of a key, once it is computed. */
export function useFingerprint(key: string | null | undefined): string | undefined {
  const [print, setPrint] = useState<{ key: string; text: string | undefined }>();
  useEffect(() => {
    let gone = false;
    if (key) void fingerprint(key).then((text) => gone || setPrint({ key, text }));
    return () => {
      gone = true;
    };
  }, [key]);
  return print?.key === key ? print?.text : undefined;
}

export function SiteKey({ site }: { site: Site }) {
  const print = useFingerprint(site.public_key);
  const [typed, setTyped] = useState("");
  const [known, setKnown] = useState(() => remembered(site.id));
  const key = site.public_key;
  if (!key) return <p>None yet: the first executor makes it when it runs.</p>;
  const answer = compareKey(key, print, typed);
  return (
    <div className="flex flex-col items-start gap-1.5">
      {print && <span className="mono select-all">{print}</span>}
      <span className="mono text-soft text-xs break-all select-all">{key}</span>
      {known === undefined ? (
        <Status tone="wait" word="not compared in this browser" />
      ) : known.key === key ? (
        <Status tone="ok" word="compared in this browser" title={clock(known.at, 0)} />
      ) : (
        <p role="alert" className="text-bad">
          This is not the key that was compared here on {clock(known.at, 0)}. Seal no password to it before an executor of the site prints the same.
        </p>
      )}
      <FormDialog
        label="Compare the key…"
        labelFor={`of ${site.name}`}
        title={`Compare the key of ${site.name}`}
        note={
          <>
            Run <code className="mono">rackhand-executor site-key --data DIR</code> on the machine of an executor of this site and paste what it prints. Do not copy it from this page.
          </>
        }
        send="They match"
        wrong={answer === "same" ? undefined : answer === "other" ? "The keys differ." : "Paste a key or its fingerprint."}
        failed="This browser cannot remember it"
        act={async () => remember(site.id, key, new Date().toISOString())}
        done={() => {
          setTyped("");
          setKnown(remembered(site.id));
        }}
      >
        <textarea className="field mono" rows={3} aria-label="What the executor printed" spellCheck={false} value={typed} onChange={(event) => setTyped(event.target.value)} />
        <p role="status" className="empty:hidden">
          {answer === "same" && <Status tone="ok" word="The same key" />}
          {answer === "no key" && typed.trim() !== "" && <span className="text-bad">This is not a key. Paste what rackhand-executor site-key prints: a key of 44 characters, its fingerprint, or both.</span>}
          {answer === "other" && <span className="text-bad">Another key. Seal no password for this site: someone may be in the middle. Check that the executor belongs to this site and to this control plane.</span>}
        </p>
      </FormDialog>
    </div>
  );
}
