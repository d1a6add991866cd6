/**
 * The one dialog with a form: a button that opens it, what it is about, its fields, what went wrong. The focus stays
 * inside and goes back to the button; Escape and "Cancel" close it. What was typed stays until it has been sent.
 */
import { Dialog } from "@base-ui/react/dialog";
import { useMutation } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";

import { DIALOG } from "./dialog";
import { Button, type Look, ProblemNote } from "./ui";

interface Props<T> {
  /** On the button that opens it. */
  label: string;
  /** What the button acts on, for those who do not see where it stands. */
  labelFor?: string | undefined;
  /** Shown on the button instead of the label, where a sign says enough. */
  sign?: string;
  look?: Look;
  /** What it does cannot be taken back: the button that sends says so by its colour, too. */
  danger?: boolean;
  /** Why it cannot be opened. */
  blocked?: string | undefined;
  /** Shows that beside the button. */
  explain?: boolean;
  title: string;
  note: ReactNode;
  /** On the button that sends: the label if absent, and while it works. */
  send?: string;
  sending?: string;
  /** On the button that leaves everything as it is. */
  keep?: string;
  /** What keeps it from being sent. */
  wrong?: string | undefined;
  /** Heads what went wrong: "The job was not planned". */
  failed?: string;
  wide?: boolean;
  /** Absent: there is nothing to send, it only shows something. */
  act?: () => Promise<T>;
  done?: (result: T) => void;
  /** What the person has to read of the result before the dialog closes. */
  outcome?: (result: T) => string | undefined;
  children?: ReactNode;
}

export function FormDialog<T>({ label, labelFor, sign, look = "plain", danger = look === "danger", blocked, explain = false, title, note, send = label, sending = "Sending…", keep = "Cancel", wrong, failed, wide = false, act, done, outcome, children }: Props<T>) {
  const [open, setOpen] = useState(false);
  const action = useMutation({
    mutationFn: act ?? (() => Promise.reject(new Error("There is nothing to send."))),
    onSuccess: (result) => {
      setOpen(outcome?.(result) !== undefined);
      done?.(result);
    },
  });
  const told = action.data === undefined ? undefined : outcome?.(action.data);
  return (
    <Dialog.Root
      open={open}
      onOpenChange={(next) => {
        setOpen(next);
        if (next) action.reset();
      }}
    >
      <Dialog.Trigger render={<Button look={look} blocked={blocked} explain={explain} aria-label={labelFor && `${label} ${labelFor}`} />}>{sign ?? label}</Dialog.Trigger>
      <Dialog.Portal>
        <Dialog.Backdrop className={DIALOG.backdrop} />
        <Dialog.Popup className={`${DIALOG.popup} ${wide ? "max-w-2xl" : "max-w-md"}`}>
          <Dialog.Title className={DIALOG.title}>{title}</Dialog.Title>
          <Dialog.Description className="text-soft" render={<div />}>
            {note}
          </Dialog.Description>
          <form
            className="flex flex-col gap-3"
            noValidate
            onSubmit={(event) => {
              event.preventDefault();
              // React passes it on to a form in whose part of the tree the dialog stands: that one is not to be sent.
              event.stopPropagation();
              if (act && wrong === undefined && !action.isPending) action.mutate();
            }}
          >
            {children}
            <p role="status" className="border-line bg-raised rounded-md border px-3 py-2 empty:hidden">
              {told}
            </p>
            {action.error && <ProblemNote error={action.error} what={failed} />}
            <div className="flex justify-end gap-2">
              <Dialog.Close className="btn">{act && told === undefined ? keep : "Close"}</Dialog.Close>
              {act && told === undefined && (
                <Button type="submit" look={danger ? "danger" : "primary"} blocked={wrong} busy={action.isPending}>
                  {action.isPending ? sending : send}
                </Button>
              )}
            </div>
          </form>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
