/** What people can do to a job. Each asks for a reason, which the audit keeps. */
import { Dialog } from "@base-ui/react/dialog";
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";

import { api, body } from "../../api/client";
import { isOver } from "../../api/queries";
import type { Job, Me } from "../../api/types";
import { DIALOG } from "../../components/dialog";
import { Button, ProblemNote } from "../../components/ui";
import { count } from "../../lib/format";
import { missingRole } from "../../lib/roles";

type Action = "pause" | "resume" | "cancel" | "retry-failed";

interface Props {
  job: Job;
  me: Me;
  put: (job: Job) => void;
}

export function JobActions({ job, me, put }: Props) {
  const forbidden = missingRole(me, "operator", job.site_id, job.site);
  const working = ["running", "leased", "waiting", "settling"].reduce((sum, state) => sum + (job.runs[state] ?? 0), 0);
  const queued = job.runs.queued ?? 0;
  const again = (job.runs.failed ?? 0) + (job.runs.cancelled ?? 0) + (job.runs.unknown ?? 0);
  return (
    <>
      {job.state === "running" && (
        <ReasonDialog job={job} action="pause" label="Pause" forbidden={forbidden} done={put}>
          No new run starts. {count(working, "run")} under way {working === 1 ? "goes" : "go"} on to a safe end; {count(queued, "run")} wait.
        </ReasonDialog>
      )}
      {job.state === "paused" && (
        <ReasonDialog job={job} action="resume" label="Resume" look="primary" forbidden={forbidden} done={put}>
          {count(queued, "run")} may start again, at most {job.policy.max_parallel} at once.
        </ReasonDialog>
      )}
      {!isOver(job.state) && (
        <ReasonDialog job={job} action="cancel" label="Cancel job" look="danger" forbidden={forbidden} done={put}>
          {job.state === "planned" ? (
            "Nothing has started, so nothing is undone. The plan cannot be approved afterwards."
          ) : (
            <>
              {count(queued, "run")} will not start. {count(working, "run")} under way {working === 1 ? "ends" : "end"} at the next safe point: while a device is flashing nothing is interrupted, and what was changed on the way is restored.
            </>
          )}
        </ReasonDialog>
      )}
      {isOver(job.state) && again > 0 && <Retry job={job} forbidden={forbidden} again={again} />}
    </>
  );
}

function Retry({ job, forbidden, again }: { job: Job; forbidden: string | undefined; again: number }) {
  const navigate = useNavigate();
  return (
    <ReasonDialog
      job={job}
      action="retry-failed"
      label={`Retry ${count(again, "server")}`}
      forbidden={forbidden}
      done={(next) => void navigate({ to: "/jobs/$id", params: { id: next.id }, search: {} })}
    >
      A new job is planned for the {count(again, "server")} that failed, {again === 1 ? "was" : "were"} cancelled or ended unknown. Its plan is computed anew and waits for approval.
    </ReasonDialog>
  );
}

interface ReasonDialogProps {
  job: Job;
  action: Action;
  label: string;
  look?: "plain" | "primary" | "danger";
  forbidden: string | undefined;
  done: (job: Job) => void;
  children: ReactNode;
}

function ReasonDialog({ job, action, label, look = "plain", forbidden, done, children }: ReasonDialogProps) {
  const [open, setOpen] = useState(false);
  const [reason, setReason] = useState("");
  const act = useMutation({
    mutationFn: () => {
      const call = { params: { path: { id: job.id } }, body: { reason: reason.trim() } };
      if (action === "pause") return body(api.POST("/v1/jobs/{id}/pause", call));
      if (action === "resume") return body(api.POST("/v1/jobs/{id}/resume", call));
      if (action === "cancel") return body(api.POST("/v1/jobs/{id}/cancel", call));
      return body(api.POST("/v1/jobs/{id}/retry-failed", call));
    },
    onSuccess: (next) => {
      setOpen(false);
      setReason("");
      done(next);
    },
  });
  const short = reason.trim().length < 3;
  return (
    <Dialog.Root
      open={open}
      onOpenChange={(next) => {
        setOpen(next);
        if (next) act.reset();
      }}
    >
      <Button look={look} blocked={forbidden} onClick={() => setOpen(true)}>
        {label}
      </Button>
      <Dialog.Portal>
        <Dialog.Backdrop className={DIALOG.backdrop} />
        <Dialog.Popup className={`${DIALOG.popup} max-w-md`}>
          <Dialog.Title className={DIALOG.title}>{label}</Dialog.Title>
          <Dialog.Description className="text-soft">{children}</Dialog.Description>
          <form
            className="flex flex-col gap-3"
            onSubmit={(event) => {
              event.preventDefault();
              if (!short && !act.isPending) act.mutate();
            }}
          >
            <label className="flex flex-col gap-1">
              <span className="font-medium">Reason</span>
              <textarea className="field" rows={3} maxLength={500} required autoFocus value={reason} onChange={(event) => setReason(event.target.value)} />
            </label>
            {act.error && <ProblemNote error={act.error} />}
            <div className="flex justify-end gap-2">
              <Dialog.Close className="btn">Back</Dialog.Close>
              <Button type="submit" look={look === "plain" ? "primary" : look} blocked={short ? "Give a reason of at least 3 characters." : undefined} busy={act.isPending}>
                {act.isPending ? "Sending…" : label}
              </Button>
            </div>
          </form>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}
