/** The plan as the server computed it, and its approval, which is bound to the digest. */
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";

import { api, body } from "../../api/client";
import { problemCode } from "../../api/problem";
import type { Job, Me, PlanStep, PlanTarget, Site } from "../../api/types";
import { InventoryButton } from "../../components/InventoryButton";
import { Shape, Status } from "../../components/Status";
import { Age, Button, None, ProblemNote } from "../../components/ui";
import { saveDraft } from "../../lib/draft";
import { count, duration, shortDigest, words } from "../../lib/format";
import { approveLabel, bootWords, changes, idleNote, planOrder, planSums, powerWords, REBOOT, rebootOf, usedPackages } from "../../lib/job";
import { missingRole } from "../../lib/roles";
import { pausedSite } from "../../lib/siteConfig";
import { CloseJob } from "./Actions";

interface Props {
  job: Job;
  me: Me;
  site: Site | undefined;
  put: (job: Job) => void;
}

export function PlanView({ job, me, site, put }: Props) {
  const [only, setOnly] = useState<Kind>();
  const sums = planSums(job.plan);
  const targets = planOrder(job.plan.targets).filter((target) => only === undefined || kindOf(target) === only || (only === "warned" && target.warnings.length > 0));
  return (
    <div className="flex flex-col gap-4">
      <section className="panel" aria-labelledby="what-will-happen">
        <div className="grid gap-x-8 gap-y-4 p-4 lg:grid-cols-[minmax(0,1fr)_auto]">
          <div>
            <h2 id="what-will-happen" className="pb-2 font-medium">
              {job.state === "planned" ? "What will happen" : "What was approved"}
            </h2>
            <ul className="flex flex-col gap-1">
              <Line tone="go" show={sums.change > 0}>
                <b>{count(sums.change, "server")}</b> {sums.change === 1 ? "is" : "are"} changed, at most {job.policy.max_parallel} at once
                {job.policy.pause_after_failures > 0 && <>; the job pauses automatically after {count(job.policy.pause_after_failures, "failure")}</>}
              </Line>
              <Line tone="wait" show={Boolean(job.policy.start_after)}>
                Nothing starts before <b>{job.policy.start_after && <time dateTime={job.policy.start_after}>{new Date(job.policy.start_after).toLocaleString()}</time>}</b>
              </Line>
              <Line tone="warn" show={job.state === "planned" && sums.change > 0 && site?.config.hardware_paused === true}>
                Hardware operations are paused in {site && pausedSite(site)}: nothing starts until they are resumed
              </Line>
              <Line tone="warn" show={sums.hostReboots > 0}>
                <b>{count(sums.hostReboots, "host")}</b> {sums.hostReboots === 1 ? "is" : "are"} restarted
              </Line>
              <Line tone="wait" show={sums.bmcReboots > 0}>
                <b>{count(sums.bmcReboots, "BMC")}</b> {sums.bmcReboots === 1 ? "restarts itself" : "restart themselves"}; the hosts keep running
              </Line>
              <Line tone="ok" show={sums.nothing > 0}>
                <b>{count(sums.nothing, "server")}</b> {sums.nothing === 1 ? "needs" : "need"} nothing: there already
              </Line>
              <Line tone="bad" show={sums.blocked > 0}>
                <b>{count(sums.blocked, "server")}</b> {sums.blocked === 1 ? "is" : "are"} blocked
              </Line>
              <Line tone="warn" show={sums.warnings > 0}>
                <b>{count(sums.warnings, "warning")}</b>
              </Line>
            </ul>
          </div>
          <dl className="grid content-start gap-x-6 gap-y-1.5 sm:grid-cols-[auto_auto]">
            <dt className="eyebrow pt-px">Forecast</dt>
            <dd>{job.plan.estimated_minutes > 0 ? `about ${duration(job.plan.estimated_minutes * 60_000)}` : <None />}</dd>
            <dt className="eyebrow pt-px">Digest</dt>
            <dd className="mono" title={job.plan.digest}>
              <span className="sr-only">{job.plan.digest}</span>
              <span aria-hidden="true">{shortDigest(job.plan.digest)}…</span>
            </dd>
            {job.plan.approved_at && (
              <>
                <dt className="eyebrow pt-px">Approved</dt>
                <dd>
                  {job.plan.approved_by_name}, <Age at={job.plan.approved_at} />
                </dd>
              </>
            )}
          </dl>
        </div>
        {job.state === "planned" && <Approve job={job} me={me} site={site} put={put} />}
      </section>

      <Packages job={job} />

      <section className="panel" aria-label="Steps for each server">
        <div className="border-line bg-raised flex min-h-9 flex-wrap items-center gap-1.5 border-b px-3 py-1">
          <h2 className="eyebrow pr-2">Servers ({job.plan.targets.length})</h2>
          <Pick kind={undefined} only={only} set={setOnly} n={job.plan.targets.length} word="all" />
          <Pick kind="blocked" only={only} set={setOnly} n={sums.blocked} word="blocked" />
          <Pick kind="warned" only={only} set={setOnly} n={job.plan.targets.filter((target) => target.warnings.length > 0).length} word="with warnings" />
          <Pick kind="change" only={only} set={setOnly} n={sums.change} word="to change" />
          <Pick kind="nothing" only={only} set={setOnly} n={sums.nothing} word="nothing to do" />
        </div>
        <div className="overflow-x-auto" tabIndex={0} role="region" aria-label="Plan, scrollable">
          <table role="table" className="grid-table cards stacked">
            <caption className="sr-only">Plan</caption>
            <thead>
              <tr role="row">
                <th scope="col">Server</th>
                <th scope="col">Step</th>
                <th scope="col">Reboot</th>
                <th scope="col">Minutes</th>
                <th scope="col">Notes</th>
              </tr>
            </thead>
            <tbody>
              {targets.map((target) => (
                <Row key={target.server_id} target={target} />
              ))}
            </tbody>
          </table>
        </div>
      </section>
    </div>
  );
}

type Kind = "blocked" | "change" | "nothing" | "warned";

function kindOf(target: PlanTarget): Kind {
  if (target.blockers.length > 0) return "blocked";
  return target.steps.some(changes) ? "change" : "nothing";
}

function Line({ tone, show, children }: { tone: "go" | "warn" | "wait" | "ok" | "bad"; show: boolean; children: ReactNode }) {
  if (!show) return null;
  return (
    <li className="flex items-start gap-2">
      <span className="pt-[3px]">
        <Shape tone={tone} />
      </span>
      <span>{children}</span>
    </li>
  );
}

function Pick({ kind, only, set, n, word }: { kind: Kind | undefined; only: Kind | undefined; set: (kind: Kind | undefined) => void; n: number; word: string }) {
  if (n === 0 && kind !== undefined) return null;
  return (
    <button
      type="button"
      aria-pressed={only === kind}
      onClick={() => set(kind)}
      className={`h-6 rounded px-2 text-xs ${only === kind ? "bg-accent-wash text-accent font-medium" : "text-soft hover:bg-hover"}`}
    >
      {n} {word}
    </button>
  );
}

function Row({ target }: { target: PlanTarget }) {
  const blocked = target.blockers.length > 0;
  return (
    <tr role="row" data-row className="align-top">
      <td role="cell" className="font-medium rows:py-2!">
        {target.server}
      </td>
      <td role="cell" className="whitespace-normal! rows:py-2!">
        {target.steps.length === 0 && <None />}
        {target.steps.map((step, index) => (
          <Step key={index} step={step} target={target} off={blocked} />
        ))}
      </td>
      <td role="cell" className="text-soft whitespace-normal! rows:py-2!">
        {!blocked && target.steps.map((step, index) => (changes(step) ? <div key={index}>{REBOOT[rebootOf(step)]}</div> : null))}
      </td>
      <td role="cell" className="mono rows:py-2!">
        {blocked || !target.steps.some(changes) ? (
          <None />
        ) : (
          <>
            {target.estimated_minutes}
            <span className="text-soft font-sans rows:hidden"> minutes</span>
          </>
        )}
      </td>
      <td role="cell" className="whitespace-normal! rows:py-2!">
        {target.blockers.map((text) => (
          <div key={text} className="flex items-start gap-1.5">
            <Status tone="bad" word="Blocked:" />
            <span>{text}</span>
          </div>
        ))}
        {target.warnings.map((text) => (
          <div key={text} className="flex items-start gap-1.5">
            <Status tone="warn" word="Warning:" />
            <span>{text}</span>
          </div>
        ))}
      </td>
    </tr>
  );
}

function Step({ step, target, off }: { step: PlanStep; target: PlanTarget; off: boolean }) {
  switch (step.step) {
    case "read_inventory":
      return <div>Read the inventory</div>;
    case "power":
      return (
        <div className={off ? "text-faint" : ""}>
          Power: {words(step.action)} <span className="text-soft whitespace-nowrap">({powerWords(step.action, target.power)})</span>
        </div>
      );
    case "boot_override":
      return <div>Boot override: {bootWords(step)}</div>;
    case "already_installed":
      return (
        <div className="text-soft">
          {step.component} is at <span className="mono">{step.version}</span> already
        </div>
      );
    case "firmware":
      return (
        <div className={off ? "text-faint" : ""}>
          {step.component_name}{" "}
          <span className="mono">
            {step.from} → <b className={off ? "" : "text-accent"}>{step.to}</b>
          </span>
          <div className="text-faint text-xs">
            <span className="mono break-all">{step.component}</span> · sha256 <span className="mono">{shortDigest(step.sha256)}…</span>
          </div>
        </div>
      );
  }
}

function Packages({ job }: { job: Job }) {
  if (job.kind !== "firmware_update") return null;
  const all = Object.entries(job.params.packages);
  const used = usedPackages(job.params.packages, job.plan);
  const listed = used.length > 0 ? used : all;
  const unused = all.map(([name]) => name).filter((name) => listed.every(([other]) => other !== name));
  return (
    <details className="panel">
      <summary className="bg-raised px-3 py-2">
        <span className="eyebrow">Packages ({listed.length})</span>
        {job.params.allow_downgrade && <span className="text-warn pl-3">older versions are installed too</span>}
      </summary>
      <ul>
        {listed.map(([generation, item]) => (
          <li key={generation} className="border-line grid gap-x-4 border-t px-3 py-2 sm:grid-cols-[90px_minmax(0,1fr)]">
            <span className="mono">{generation}</span>
            <span className="min-w-0 break-words">
              {item.name} · version <span className="mono">{item.version}</span> · software id <span className="mono">{item.software_id}</span>
              <br />
              <span className="mono text-soft break-all">{item.url}</span>
              <br />
              <span className="mono text-faint break-all">sha256 {item.sha256}</span>
            </span>
          </li>
        ))}
        {unused.length > 0 && <li className="border-line text-soft border-t px-3 py-2">Given, but not used in this plan: {unused.join(", ")}.</li>}
      </ul>
    </details>
  );
}

function Approve({ job, me, site, put }: Props) {
  const navigate = useNavigate();
  const approve = useMutation({
    mutationFn: () => body(api.POST("/v1/jobs/{id}/approve", { params: { path: { id: job.id } }, body: { digest: job.plan.digest } })),
    onSuccess: (next) => {
      put(next);
      void navigate({ to: "/jobs/$id", params: { id: job.id }, search: {} });
    },
  });
  let blocked = missingRole(me, "operator", job.site_id, job.site);
  if (blocked === undefined && site?.config.second_person && job.created_by === me.id) {
    blocked = `${job.site} requires a second person: someone else with the role operator must approve this.`;
  }
  const idle = idleNote(job.plan);
  // Where not even a step was found, a fresh inventory may be what is missing.
  const out = job.plan.targets.filter((target) => target.blockers.length > 0 && target.steps.length === 0).map((target) => target.server_id);
  const replan = (): void => {
    if (job.kind !== "firmware_update") return;
    const draft = saveDraft({
      siteId: job.site_id,
      site: job.site,
      targets: job.plan.targets.map((target) => ({ id: target.server_id, name: target.server })),
      origin: "from an earlier plan",
      packages: job.params.packages,
      allowDowngrade: job.params.allow_downgrade,
      reason: job.reason,
    });
    void navigate({ to: "/jobs/new", search: { draft } });
  };
  return (
    <div className="border-line bg-raised flex flex-col gap-3 border-t px-4 py-3">
      {approve.error && (
        <ProblemNote
          error={approve.error}
          what="Not approved"
        />
      )}
      <div className="flex flex-wrap items-center gap-3">
        {idle === undefined ? (
          <Button look="primary" blocked={blocked} explain busy={approve.isPending} onClick={() => approve.mutate()}>
            {approve.isPending ? "Approving…" : approveLabel(job)}
          </Button>
        ) : (
          <CloseJob job={job} me={me} put={put} />
        )}
        {(problemCode(approve.error) === "plan-stale" || idle !== undefined) && job.kind === "firmware_update" && <Button onClick={replan}>Change and plan again</Button>}
        {job.kind === "firmware_update" && out.length > 0 && <InventoryButton siteId={job.site_id} targets={out} blocked={missingRole(me, "operator", job.site_id, job.site)} label={`Read inventory of ${count(out.length, "server")}`} />}
        {idle !== undefined && <span className="text-soft">{idle}</span>}
        {idle === undefined && blocked === undefined && <span className="text-soft">Bound to exactly this plan: if a server has changed meanwhile, it is not touched and has to be planned again.</span>}
      </div>
    </div>
  );
}
