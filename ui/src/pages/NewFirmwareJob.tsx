/** A firmware job in preparation: frozen targets, a package for each model or BMC generation, pace and reason. */
import { useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useState } from "react";

import { meQuery } from "../api/queries";
import { ReasonField } from "../components/fields";
import { InventoryButton } from "../components/InventoryButton";
import { usePlannedJob } from "../components/JobDialog";
import { PaceFields } from "../components/PaceFields";
import { Shape } from "../components/Status";
import { Button, Empty, PageHead, Panel, ProblemNote } from "../components/ui";
import { type Draft, type FirmwareForm, keepForm, loadDraft } from "../lib/draft";
import { byNumber, count, generation as generationName } from "../lib/format";
import { PACE, paceWrong, REASON } from "../lib/job";
import { EMPTY, isBlank, packageFor, packageKey, packageProblems, toForm, toPackage } from "../lib/packages";
import { missingRole } from "../lib/roles";
import { PackageEditor, PastePackages } from "./job/PackageEditor";

export function NewFirmwareJob() {
  const { draft: id } = useSearch({ from: "/signed-in/jobs/new" });
  const draft = useMemo(() => loadDraft(id), [id]);
  if (draft === undefined) {
    return (
      <div className="panel">
        <h1 className="sr-only">Update firmware</h1>
        <Empty title="No servers are selected here">
          Select them on{" "}
          <Link to="/servers" className="link">
            Servers
          </Link>{" "}
          and choose “Update firmware”.
        </Empty>
      </div>
    );
  }
  return <Form key={id} id={id ?? ""} draft={draft} />;
}

function Form({ id, draft }: { id: string; draft: Draft }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const queries = useQueryClient();
  const navigate = useNavigate();
  const generations = useMemo(() => distinct(draft.targets.map((target) => target.generation)), [draft]);
  const models = useMemo(() => distinct(draft.targets.map((target) => target.model)), [draft]);

  const [form, setForm] = useState<FirmwareForm>(() => draft.form ?? fresh(draft, generations));
  useEffect(() => keepForm(id, form), [id, form]);
  const { packages, downgrade, parallel, pauseAfter, startAfter, reason } = form;
  const set = (change: Partial<FirmwareForm>): void => setForm((old) => ({ ...old, ...change }));
  const setPackages = (change: (old: FirmwareForm["packages"]) => FirmwareForm["packages"]): void => setForm((old) => ({ ...old, packages: change(old.packages) }));
  const [tried, setTried] = useState(false);

  const filled = Object.entries(packages).filter(([, item]) => !isBlank(item));
  const wrong = filled.some(([, item]) => Object.keys(packageProblems(item)).length > 0);
  const given = filled.map(([name]) => name);
  // A target's identity is null where nobody has read it yet, and absent where the draft was made without it.
  const unread = draft.targets.filter((target) => target.model === null && target.generation === null);
  const lookedUp = draft.targets.every((target) => target.model !== undefined);
  const uncovered = draft.targets.filter((target) => target.model !== undefined && !unread.includes(target)).filter((target) => packageFor(target, given) === undefined);
  const servers = (name: string): number => draft.targets.filter((target) => packageFor(target, Object.keys(packages)) === name).length;
  const addable = [...generations, ...models, "any"].filter((name) => packages[name] === undefined);

  const create = usePlannedJob((job) => {
    void queries.invalidateQueries({ queryKey: ["jobs"] });
    void navigate({ to: "/jobs/$id", params: { id: job.id } });
  });
  const plan = (): void =>
    create.mutate({
      site_id: draft.siteId,
      kind: "firmware_update",
      params: { packages: Object.fromEntries(filled.map(([name, item]) => [name, toPackage(item)])), allow_downgrade: downgrade },
      targets: draft.targets.map((target) => target.id),
      policy: { max_parallel: Number(parallel), pause_after_failures: Number(pauseAfter), start_after: utc(startAfter) },
      reason: reason.trim(),
    });

  const missing =
    filled.length === 0 ? "Give at least one package." : wrong ? "Some package fields are not right yet." : reason.trim().length < REASON.min ? REASON.short : paceWrong(parallel, pauseAfter) ? "Check the limits above." : undefined;
  const forbidden = missingRole(me, "operator", draft.siteId, draft.site);

  return (
    <form
      className="max-w-[980px]"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (missing === undefined && forbidden === undefined && !create.isPending) plan();
        const form = event.currentTarget;
        if (missing !== undefined) requestAnimationFrame(() => form.querySelector<HTMLElement>("[aria-invalid=true]")?.focus());
      }}
    >
      <PageHead
        title="Update firmware"
        meta={
          <span>
            {count(draft.targets.length, "server")} in {draft.site}, {draft.origin}
          </span>
        }
      />
      <div className="flex flex-col gap-4">
        <Targets draft={draft} generations={generations} />
        {unread.length > 0 && (
          <div role="status" className="border-warn/40 bg-warn-wash flex flex-wrap items-center gap-x-4 gap-y-2 rounded-md border px-3 py-2.5">
            <p className="flex flex-1 basis-96 items-start gap-2">
              <span className="pt-0.5">
                <Shape tone="warn" />
              </span>
              {count(unread.length, "server")} {unread.length === 1 ? "has" : "have"} never been read, so {unread.length === 1 ? "its" : "their"} firmware is not known and the plan will block {unread.length === 1 ? "it" : "them"}. Read the inventory first, then select {unread.length === 1 ? "it" : "them"} again.
            </p>
            <InventoryButton siteId={draft.siteId} targets={unread.map((target) => target.id)} blocked={forbidden} />
          </div>
        )}
        <Panel title="Packages, by server model or BMC generation" aside={<PastePackages use={(given) => set({ packages: given })} />}>
          <div className="flex flex-col gap-4 p-4">
            <p className="text-soft">An executor fetches the file inside the site, checks its SHA-256, and hands nothing else to a BMC. The version is what must be read back.</p>
            {Object.entries(packages).map(([name, item], index) => (
              <PackageEditor
                key={name}
                target={name}
                servers={lookedUp ? servers(name) : undefined}
                form={item}
                strict={tried}
                needed={filled.length === 0 && index === 0}
                change={(next) => setPackages((old) => ({ ...old, [name]: next }))}
                remove={
                  Object.keys(packages).length > 1
                    ? () => setPackages((old) => Object.fromEntries(Object.entries(old).filter(([other]) => other !== name)))
                    : undefined
                }
              />
            ))}
            {addable.length > 0 && (
              <label className="flex flex-wrap items-center gap-x-2 gap-y-1">
                <span>Add a package for</span>
                <select className="field max-w-full" value="" onChange={(event) => setPackages((old) => ({ ...old, [event.target.value]: EMPTY }))}>
                  <option value="" disabled>
                    choose
                  </option>
                  {addable.map((name) => (
                    <option key={name} value={name}>
                      {packageKey(name)}
                    </option>
                  ))}
                </select>
                <span className="text-soft">A model's package goes before its BMC generation's.</span>
              </label>
            )}
            {filled.length > 0 && uncovered.length > 0 && (
              <p className="text-warn">
                {count(uncovered.length, "server")} {uncovered.length === 1 ? "has" : "have"} no package and will be blocked in the plan:{" "}
                {uncovered
                  .slice(0, 8)
                  .map((target) => target.name)
                  .join(", ")}
                {uncovered.length > 8 && " …"}
              </p>
            )}
          </div>
        </Panel>
        <Panel title="How and why">
          <div className="flex flex-col gap-4 p-4">
            <div className="flex flex-wrap gap-x-6 gap-y-3">
              <PaceFields pace={{ parallel, pauseAfter }} set={set} />
              <label className="flex flex-col gap-1">
                <span className="font-medium">Not before</span>
                <input className="field w-56" type="datetime-local" value={startAfter} onChange={(event) => set({ startAfter: event.target.value })} />
                <span className="text-faint text-xs">Your time; empty starts at once</span>
              </label>
              <label className="flex items-center gap-2 self-center pt-4">
                <input type="checkbox" className="accent-accent size-3.5" checked={downgrade} onChange={(event) => set({ downgrade: event.target.checked })} />
                Allow downgrades
              </label>
            </div>
            <ReasonField value={reason} set={(text) => set({ reason: text })} problem={tried && reason.trim().length < REASON.min ? REASON.short : undefined} />
          </div>
        </Panel>
        {create.error && <ProblemNote error={create.error} what="The job was not created" />}
        <div className="flex flex-wrap items-center gap-3">
          <Button type="submit" look="primary" blocked={forbidden} explain busy={create.isPending}>
            {create.isPending ? "Planning…" : "Make the plan"}
          </Button>
          <span className={tried && missing ? "text-bad" : "text-soft"} role={tried && missing ? "alert" : undefined}>
            {missing !== undefined && tried ? missing : "Nothing is changed yet: the plan comes first, for approval."}
          </span>
        </div>
      </div>
    </form>
  );
}

/** The form before anyone has typed into it. */
function fresh(draft: Draft, generations: string[]): FirmwareForm {
  const given = Object.entries(draft.packages ?? {}).map(([key, item]) => [key, toForm(item)] as const);
  const empty = generations.map((key) => [key, EMPTY] as const);
  return {
    packages: Object.fromEntries(given.length > 0 ? given : empty.length > 0 ? empty : [["any", EMPTY]]),
    downgrade: draft.allowDowngrade ?? false,
    parallel: String(PACE.max_parallel),
    pauseAfter: String(PACE.pause_after_failures),
    startAfter: "",
    reason: draft.reason ?? "",
  };
}

function distinct(values: (string | null | undefined)[]): string[] {
  return [...new Set(values.filter((value) => typeof value === "string"))].sort(byNumber);
}

function Targets({ draft, generations }: { draft: Draft; generations: string[] }) {
  const known = (name: string): number => draft.targets.filter((target) => target.generation === name).length;
  return (
    <Panel
      title={`Targets (${draft.targets.length})`}
      aside={generations.map((name) => `${generationName(name)}: ${known(name)}`).join(" · ")}
    >
      <ul className="flex max-h-28 flex-wrap gap-1.5 overflow-auto p-3" tabIndex={0} aria-label="Targets of the job">
        {draft.targets.map((target) => (
          <li key={target.id} className="border-line bg-raised rounded border px-2 py-0.5">
            {target.name}
          </li>
        ))}
      </ul>
    </Panel>
  );
}

/** A local time of a `datetime-local` field in UTC, to the second. */
function utc(local: string): string | null {
  return local ? new Date(local).toISOString().replace(/\.\d+Z$/, "Z") : null;
}
