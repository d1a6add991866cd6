/**
 * Why the control before it cannot be used: read out with it, and shown beside it while it has the focus. The browser's
 * own tooltip comes for the mouse alone, and a click on what is disabled would otherwise be without an answer.
 */
import { useEffect, useLayoutEffect, useRef, useState } from "react";
import { createPortal } from "react-dom";

/** Pixels. */
const GAP = 6;
const WIDTH = 288;
const HEIGHT = 100;

type Place = { left: number } & ({ top: number } | { bottom: number });

/** Beside a box: below it, or above it where there is no room below; never outside the window. */
function beside(box: DOMRect): Place {
  const left = Math.max(GAP, Math.min(box.left, innerWidth - WIDTH - GAP));
  return box.bottom + HEIGHT > innerHeight ? { left, bottom: innerHeight - box.top + GAP } : { left, top: box.bottom + GAP };
}

export function Reason({ id, text }: { id: string; text: string }) {
  const self = useRef<HTMLSpanElement>(null);
  const [focused, setFocused] = useState(false);
  const [place, setPlace] = useState<Place>();
  useEffect(() => {
    const control = self.current?.previousElementSibling;
    if (!control) return;
    const on = (): void => setFocused(true);
    const off = (): void => setFocused(false);
    // What it covers can be read after Escape.
    const keyed = (event: Event): void => {
      if (event instanceof KeyboardEvent && event.key === "Escape") off();
    };
    control.addEventListener("focus", on);
    control.addEventListener("blur", off);
    control.addEventListener("keydown", keyed);
    return () => {
      control.removeEventListener("focus", on);
      control.removeEventListener("blur", off);
      control.removeEventListener("keydown", keyed);
    };
  }, []);
  useLayoutEffect(() => {
    if (!focused) return;
    const put = (): void => {
      const box = self.current?.previousElementSibling?.getBoundingClientRect();
      if (box) setPlace(beside(box));
    };
    put();
    addEventListener("scroll", put, true);
    addEventListener("resize", put);
    return () => {
      removeEventListener("scroll", put, true);
      removeEventListener("resize", put);
    };
  }, [focused]);
  return (
    <>
      <span ref={self} id={id} className="sr-only">
        {text}
      </span>
      {focused &&
        place &&
        createPortal(
          <div aria-hidden="true" className="bg-ink text-[color:var(--color-base)] pointer-events-none fixed z-60 rounded px-2.5 py-1.5 text-xs shadow-lg" style={{ ...place, maxWidth: WIDTH }}>
            {text}
          </div>,
          document.body,
        )}
    </>
  );
}
