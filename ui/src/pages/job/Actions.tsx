/** What people can do to a job. Each asks for a reason, which the audit keeps. */
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";

import { api, body } from "../../api/client";
import { isOver } from "../../api/queries";
import type { Job, Me } from "../../api/types";
import { ReasonField } from "../../components/fields";
import { FormDialog } from "../../components/FormDialog";
import { count } from "../../lib/format";
import { cancelNote, idleNote, pauseNote, REASON, resumeNote, runSums } from "../../lib/job";
import { missingRole } from "../../lib/roles";

type Action = "pause" | "resume" | "cancel" | "retry-failed";

interface Props {
  job: Job;
  me: Me;
  put: (job: Job) => void;
}

export function JobActions({ job, me, put }: Props) {
  const forbidden = missingRole(me, "operator", job.site_id, job.site);
  const { again } = runSums(job);
  return (
    <>
      {job.state === "running" && !job.cancel_requested && (
        <ReasonDialog job={job} action="pause" label="Pause" forbidden={forbidden} done={put}>
          {pauseNote(job)}
        </ReasonDialog>
      )}
      {job.state === "paused" && !job.cancel_requested && (
        <ReasonDialog job={job} action="resume" label="Resume" look="primary" forbidden={forbidden} done={put}>
          {resumeNote(job)}
        </ReasonDialog>
      )}
      {!isOver(job.state) && (
        <ReasonDialog job={job} action="cancel" label="Cancel job" look="danger" forbidden={job.cancel_requested ? "It is being cancelled already." : forbidden} done={put}>
          {cancelNote(job)}
        </ReasonDialog>
      )}
      {isOver(job.state) && again > 0 && <Retry job={job} forbidden={forbidden} again={again} />}
    </>
  );
}

/** For a plan that changes nothing: what it is done with. */
export function CloseJob({ job, me, put }: Props) {
  return (
    <ReasonDialog job={job} action="cancel" label="Close the job" look="primary" forbidden={missingRole(me, "operator", job.site_id, job.site)} given={idleNote(job.plan)} done={put}>
      The job ends as cancelled. {cancelNote(job)}
    </ReasonDialog>
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
  /** A reason to begin with. */
  given?: string | undefined;
  done: (job: Job) => void;
  children: ReactNode;
}

function ReasonDialog({ job, action, label, look, forbidden, given = "", done, children }: ReasonDialogProps) {
  const [reason, setReason] = useState(given);
  return (
    <FormDialog
      label={label}
      look={look}
      blocked={forbidden}
      title={label}
      note={children}
      keep={action === "cancel" ? "Keep the job" : undefined}
      wrong={reason.trim().length < REASON.min ? REASON.short : undefined}
      act={() => {
        const call = { params: { path: { id: job.id } }, body: { reason: reason.trim() } };
        if (action === "pause") return body(api.POST("/v1/jobs/{id}/pause", call));
        if (action === "resume") return body(api.POST("/v1/jobs/{id}/resume", call));
        if (action === "cancel") return body(api.POST("/v1/jobs/{id}/cancel", call));
        return body(api.POST("/v1/jobs/{id}/retry-failed", call));
      }}
      done={(next) => {
        setReason("");
        done(next);
      }}
    >
      <ReasonField value={reason} set={setReason} />
    </FormDialog>
  );
}
