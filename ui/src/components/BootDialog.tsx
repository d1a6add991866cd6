/** Plans a boot override for one server; nothing happens before its plan is approved. */
import { Dialog } from "@base-ui/react/dialog";
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useRef, useState } from "react";

import { api, body } from "../api/client";
import type { BootMode, BootTarget, Server } from "../api/types";
import { DIALOG } from "./dialog";
import { Button, ProblemNote } from "./ui";

const TARGETS: Record<BootTarget, string> = {
  pxe: "Network (PXE)",
  disk: "Disk",
  cd: "CD or DVD, also a virtual one",
  bios_setup: "Firmware setup",
  none: "Nothing: clear what is set",
};

export function BootDialog({ server, blocked }: { server: Server; blocked: string | undefined }) {
  const navigate = useNavigate();
  const [open, setOpen] = useState(false);
  const [target, setTarget] = useState<BootTarget>("pxe");
  const [continuous, setContinuous] = useState(false);
  const [mode, setMode] = useState<BootMode | "">("");
  const [reason, setReason] = useState("");
  // Kept until the job is there, so that a repeated click after a lost answer makes no second one.
  const key = useRef({ asked: "", key: "" });
  const plan = useMutation({
    mutationFn: () => {
      const params = { target, times: continuous ? ("continuous" as const) : ("once" as const), mode: mode === "" ? null : mode };
      const asked = JSON.stringify([params, reason]);
      if (key.current.asked !== asked) key.current = { asked, key: crypto.randomUUID() };
      return body(
        api.POST("/v1/jobs", {
          params: { header: { "Idempotency-Key": key.current.key } },
          body: { site_id: server.site_id, kind: "boot_override", params, targets: [server.id], policy: { max_parallel: 8, pause_after_failures: 3, start_after: null }, reason: reason.trim() },
        }),
      );
    },
    onSuccess: (job) => {
      key.current.asked = "";
      void navigate({ to: "/jobs/$id", params: { id: job.id } });
    },
  });
  const short = reason.trim().length < 3;
  return (
    <Dialog.Root
      open={open}
      onOpenChange={(next) => {
        setOpen(next);
        if (next) plan.reset();
      }}
    >
      <Button blocked={blocked} onClick={() => setOpen(true)}>
        Boot from…
      </Button>
      <Dialog.Portal>
        <Dialog.Backdrop className={DIALOG.backdrop} />
        <Dialog.Popup className={`${DIALOG.popup} max-w-md`}>
          <Dialog.Title className={DIALOG.title}>Boot override of {server.name}</Dialog.Title>
          <Dialog.Description className="text-soft">The host is not restarted. You see the plan first and approve it there.</Dialog.Description>
          <form
            className="flex flex-col gap-3"
            onSubmit={(event) => {
              event.preventDefault();
              if (!short && !plan.isPending) plan.mutate();
            }}
          >
            <label className="flex flex-col gap-1">
              <span className="font-medium">Boot from</span>
              <select className="field" value={target} onChange={(event) => setTarget(event.target.value as BootTarget)}>
                {Object.entries(TARGETS).map(([value, text]) => (
                  <option key={value} value={value}>
                    {text}
                  </option>
                ))}
              </select>
            </label>
            {target !== "none" && (
              <>
                <label className="flex items-center gap-2">
                  <input type="checkbox" className="accent-accent size-3.5" checked={continuous} onChange={(event) => setContinuous(event.target.checked)} />
                  <span>At every boot until it is cleared, not only at the next one</span>
                </label>
                <label className="flex flex-col gap-1">
                  <span className="font-medium">Boot mode</span>
                  <select className="field" value={mode} onChange={(event) => setMode(event.target.value as BootMode | "")}>
                    <option value="">As the firmware is set up</option>
                    <option value="uefi">UEFI</option>
                    <option value="legacy">Legacy BIOS</option>
                  </select>
                </label>
              </>
            )}
            <label className="flex flex-col gap-1">
              <span className="font-medium">Reason</span>
              <textarea className="field" rows={3} maxLength={500} required value={reason} onChange={(event) => setReason(event.target.value)} />
            </label>
            {plan.error && <ProblemNote error={plan.error} what="The job was not planned" />}
            <div className="flex justify-end gap-2">
              <Dialog.Close className="btn">Back</Dialog.Close>
              <Button type="submit" look="primary" blocked={short ? "Give a reason of at least 3 characters." : undefined} busy={plan.isPending}>
                {plan.isPending ? "Planning…" : "Plan"}
              </Button>
            </div>
          </form>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
