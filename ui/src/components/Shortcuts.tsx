/**
 * Keyboard shortcuts: to go somewhere, to search, to move along rows. No key acts on hardware, and none works
 * while text is typed or a dialog is open.
 */
import { useRouter } from "@tanstack/react-router";
import { useEffect, useRef } from "react";

import { pairs } from "../lib/shortcuts";
import { DIALOG } from "./dialog";

const KEYS: [string, string][] = [
  ["/", "Search"],
  ["j  k", "Next, previous row"],
  ["Enter", "Open the row"],
  ["x", "Select the row, or not"],
  ["g s", "Servers"],
  ["g j", "Jobs"],
  ["g v", "Events"],
  ["g i", "Sites"],
  ["g e", "Executors"],
  ["g c", "Credentials"],
  ["g p", "People"],
  ["?", "These shortcuts"],
];

type Place = "/servers" | "/jobs" | "/events" | "/sites" | "/executors" | "/credentials" | "/people";
const PLACES: Record<string, Place> = { s: "/servers", j: "/jobs", v: "/events", i: "/sites", e: "/executors", c: "/credentials", p: "/people" };

export function Shortcuts() {
  const router = useRouter();
  const help = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const isSecond = pairs("g");
    const onKey = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event.target)) return;
      if (document.querySelector("dialog[open], [role=dialog], [role=alertdialog]") !== null) return;
      const place = isSecond(event.key, event.timeStamp) ? PLACES[event.key] : undefined;
      if (place !== undefined) {
        const { site } = router.state.location.search as { site?: string };
        void router.navigate({ to: place, search: site ? { site } : {} });
      } else if (event.key === "/") {
        const search = document.querySelector<HTMLInputElement>("main input[type=search]");
        search?.focus();
        search?.select();
        if (search) event.preventDefault();
      } else if (event.key === "j" || event.key === "k") {
        step(event.key === "j" ? 1 : -1);
      } else if (event.key === "x") {
        document.activeElement?.closest("[data-row]")?.querySelector<HTMLInputElement>("input[type=checkbox]")?.click();
      } else if (event.key === "?") {
        help.current?.showModal();
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [router]);
  return (
    <>
      <button type="button" className="link text-soft mt-1.5 block text-xs max-md:hidden" onClick={() => help.current?.showModal()}>
        Keyboard shortcuts
      </button>
      <dialog ref={help} className={`${DIALOG.native} max-w-sm`} aria-labelledby="shortcuts-title">
        <h2 id="shortcuts-title" className={DIALOG.title}>
          Keyboard shortcuts
        </h2>
        <dl className="my-3 grid grid-cols-[auto_1fr] gap-x-6 gap-y-1.5">
          {KEYS.map(([keys, what]) => (
            <div key={keys} className="contents">
              <dt>
                {keys.split(/\s+/).map((key) => (
                  <kbd key={key} className="border-line-strong bg-sunk mono mr-1 rounded border px-1.5">
                    {key}
                  </kbd>
                ))}
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <form method="dialog" className="flex justify-end">
          <button className="btn">Close</button>
        </form>
      </dialog>
    </>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches("input:not([type=checkbox]), textarea, select"));
}

/** Moves the focus to the link of the next or previous row of the page. */
function step(by: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("main [data-row]")].flatMap((row) => row.querySelector<HTMLElement>("a[href]") ?? (row.matches("a[href]") ? row : []));
  const here = rows.findIndex((link) => link === document.activeElement || link.closest("[data-row]")?.contains(document.activeElement));
  const next = rows[here < 0 ? (by > 0 ? 0 : rows.length - 1) : here + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
