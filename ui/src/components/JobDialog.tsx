/** Plans a job from a small form, for one server or many; nothing happens before its plan is approved. */
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useRef, useState } from "react";

import { api, body } from "../api/client";
import type { Job, JobSpec, NewJob } from "../api/types";
import { count } from "../lib/format";
import { PACE, paceWrong, REASON } from "../lib/job";
import { ReasonField } from "./fields";
import { FormDialog } from "./FormDialog";
import { type Pace, PaceFields } from "./PaceFields";

export interface JobTargets {
  siteId: string;
  servers: { id: string; name: string }[];
  blocked: string | undefined;
}

interface Props extends JobTargets {
  /** On the button that opens it. */
  label: string;
  title: string;
  note: string;
  spec: () => JobSpec;
  /** The fields of this kind. */
  children: ReactNode;
}

export function JobDialog({ siteId, servers, blocked, label, title, note, spec, children }: Props) {
  const navigate = useNavigate();
  const request = useJobRequest();
  const [reason, setReason] = useState("");
  const [pace, setPace] = useState<Pace>({ parallel: String(PACE.max_parallel), pauseAfter: String(PACE.pause_after_failures) });
  const many = servers.length > 1;
  const [first] = servers;
  const wrong = reason.trim().length < REASON.min ? REASON.short : many && paceWrong(pace.parallel, pace.pauseAfter) ? "Check the limits above." : undefined;
  const policy = many ? { max_parallel: Number(pace.parallel), pause_after_failures: Number(pace.pauseAfter), start_after: null } : PACE;
  return (
    <FormDialog
      label={label}
      blocked={blocked}
      title={`${title} ${many ? count(servers.length, "server") : first?.name}`}
      note={`${note} You see the plan first and approve it there.`}
      send="Plan"
      sending="Planning…"
      wrong={wrong}
      failed="The job was not planned"
      act={() => request({ ...spec(), site_id: siteId, targets: servers.map(({ id }) => id), policy, reason: reason.trim() })}
      done={(job) => void navigate({ to: "/jobs/$id", params: { id: job.id } })}
    >
      {children}
      {many && <PaceFields pace={pace} set={setPace} />}
      <ReasonField value={reason} set={setReason} />
    </FormDialog>
  );
}

/** Requests a job. The same content keeps its key: after a lost answer the same job comes back, not a second one. */
function useJobRequest(): (job: NewJob) => Promise<Job> {
  const last = useRef({ content: "", key: "" });
  return async (job) => {
    const content = JSON.stringify(job);
    if (last.current.content !== content) last.current = { content, key: crypto.randomUUID() };
    const made = await body(api.POST("/v1/jobs", { params: { header: { "Idempotency-Key": last.current.key } }, body: job }));
    last.current.content = "";
    return made;
  };
}

/** The same outside of a dialog. */
export function usePlannedJob(done: (job: Job) => void) {
  return useMutation({ mutationFn: useJobRequest(), onSuccess: done });
}
