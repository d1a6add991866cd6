/** The sites: their settings, their key to compare, their executors, and what an admin may change. */
import { useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { useState } from "react";

import { api, body } from "../api/client";
import { executorsQuery, meQuery, sitesQuery } from "../api/queries";
import type { EnrolmentToken, Executor, Me, Site, SiteConfig } from "../api/types";
import { Command } from "../components/Command";
import { ExecutorTable } from "../components/ExecutorTable";
import { CheckField, TextField } from "../components/fields";
import { FormDialog } from "../components/FormDialog";
import { SiteKey } from "../components/SiteKey";
import { Status } from "../components/Status";
import { Age, Button, Empty, Facts, Loading, PageHead, Panel, ProblemNote } from "../components/ui";
import { onlineNote } from "../lib/executors";
import { count } from "../lib/format";
import { missingFleetAdmin, missingRole } from "../lib/roles";
import { siteConfig, siteForm, siteNameProblem, siteProblems } from "../lib/siteConfig";

export function Sites() {
  const { site: chosen } = useSearch({ from: "/signed-in/sites" });
  const { data: me } = useSuspenseQuery(meQuery);
  const { data, error, isPending, refetch } = useQuery(sitesQuery);
  const { data: executors } = useQuery(executorsQuery(undefined));
  const sites = (data?.items ?? []).filter((site) => chosen === undefined || site.id === chosen);
  return (
    <>
      <PageHead title="Sites" meta={data && count(sites.length, "site")} actions={<AddSite me={me} />} />
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={data ? "The list is out of date" : "The sites cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {isPending && <Loading what="the sites" />}
      {data && sites.length === 0 && (
        <div className="panel">
          <Empty title="No site yet">
            A site is one private network with its executors and servers. {missingFleetAdmin(me) ? "An admin of the fleet adds the first one, or grants you a role in one." : "Add the first one, then enrol an executor inside it."}
          </Empty>
        </div>
      )}
      <div className="flex flex-col gap-4">
        {sites.map((site) => (
          <OneSite key={site.id} site={site} me={me} executors={executors?.items.filter((item) => item.site_id === site.id)} />
        ))}
      </div>
    </>
  );
}

function OneSite({ site, me, executors }: { site: Site; me: Me; executors: Executor[] | undefined }) {
  const forbidden = missingRole(me, "admin", site.id, site.name);
  const [token, setToken] = useState<EnrolmentToken>();
  const paused = site.config.hardware_paused === true;
  return (
    <Panel title={site.name} named aside={<Status tone={paused ? "warn" : "ok"} word={paused ? "hardware paused" : "hardware active"} />}>
      <div className="grid grid-cols-1 lg:grid-cols-2">
        <Facts
          rows={[
            [
              "Servers",
              <Link to="/servers" search={{ site: site.id }} className="link">
                {count(site.servers, "server")}
              </Link>,
            ],
            ["Executors", executors ? onlineNote(executors) : `${site.executors_online} online`],
            ["Changing runs", `at most ${site.config.max_mutating_runs} at once`],
            ["Approval", site.config.second_person ? "by a second person" : "whoever planned a job may approve it"],
            ["Lease", `${site.config.lease_ttl_ms / 1000} s: how long an executor keeps a run without contact to the control plane`],
            ["Created", <Age at={site.created_at} />],
          ]}
        />
        <div className="border-line max-lg:border-t lg:border-l">
          <div className="flex flex-col gap-1.5 px-3 py-2">
            <h3 className="eyebrow">Key of the site</h3>
            <SiteKey site={site} />
          </div>
        </div>
      </div>
      <div className="border-line flex flex-wrap items-center gap-2 border-t px-3 py-2.5">
        <PauseHardware site={site} paused={paused} blocked={forbidden} />
        <Settings site={site} blocked={forbidden} />
        <FormDialog
          label="Enrol an executor…"
          labelFor={`in ${site.name}`}
          blocked={forbidden}
          title={`Enrol an executor in ${site.name}`}
          note="You get a token with which one executor may join this site, once, within an hour. Whoever has it can join: keep it secret."
          send="Make a token"
          failed="No token was made"
          act={() => body(api.POST("/v1/sites/{id}/enrolment-tokens", { params: { path: { id: site.id } }, body: {} }))}
          done={setToken}
        />
        {forbidden && <span className="text-soft text-xs">{forbidden}</span>}
      </div>
      {token && <Token token={token} hide={() => setToken(undefined)} first={!site.public_key} />}
      <div className="border-line border-t">
        {executors?.length === 0 && <Empty title="No executor is enrolled here">Enrol one on a machine inside this network. Until then no job of this site can start.</Empty>}
        {executors && executors.length > 0 && <ExecutorTable executors={executors} caption={`Executors of ${site.name}`} me={me} sites={[site]} />}
      </div>
    </Panel>
  );
}

function Token({ token, hide, first }: { token: EnrolmentToken; hide: () => void; first: boolean }) {
  return (
    <div className="border-line flex flex-col gap-2 border-t px-3 py-3">
      <p>
        On a machine inside this network, run this and paste the token at its prompt, which does not show it. It is valid once, for {Math.ceil(token.expires_in / 60)} minutes, and is not shown again.
      </p>
      <Command label="Command that enrols the executor" text={`rackhand-executor enrol --server ${location.origin} \\\n  --data DIR --name NAME --token-stdin`} />
      <Command label="Enrolment token" text={token.token} />
      <p className="text-soft">
        Where a private CA made the certificate of the control plane, add <code className="mono">--ca-file ca.pem</code>, below too. Then start it there: <code className="mono">rackhand-executor run --data DIR</code>.{" "}
        {first ? (
          "The first executor makes the site's key."
        ) : (
          <>
            It waits until an executor that holds the site's key confirms the fingerprint that <code className="mono">enrol</code> printed:{" "}
            <code className="mono">rackhand-executor confirm --data DIR FINGERPRINT</code>.
          </>
        )}
      </p>
      <div>
        <Button onClick={hide}>Hide the token</Button>
      </div>
    </div>
  );
}

/** Replaces the settings that were read; someone else's change in between is not overwritten. */
function useSiteUpdate(site: Site): { save: (config: SiteConfig) => Promise<unknown>; done: () => void } {
  const queries = useQueryClient();
  return {
    save: (config) => body(api.PUT("/v1/sites/{id}", { params: { path: { id: site.id }, header: { "If-Match": `"${site.version}"` } }, body: { config } })),
    done: () => void queries.invalidateQueries({ queryKey: sitesQuery.queryKey }),
  };
}

function PauseHardware({ site, paused, blocked }: { site: Site; paused: boolean; blocked: string | undefined }) {
  const { save, done } = useSiteUpdate(site);
  return (
    <FormDialog
      label={paused ? "Resume hardware operations" : "Pause hardware operations"}
      labelFor={`in ${site.name}`}
      look={paused ? "primary" : "danger"}
      blocked={blocked}
      title={`${paused ? "Resume" : "Pause"} hardware operations in ${site.name}`}
      note={
        paused
          ? "Runs that wait may start again, as many as their jobs and the site allow."
          : "No new change starts in this site until someone resumes. What a BMC is already doing is followed to its end. Reading continues."
      }
      send={paused ? "Resume" : "Pause"}
      failed="Nothing was changed"
      act={() => save({ ...site.config, hardware_paused: !paused })}
      done={done}
    />
  );
}

function Settings({ site, blocked }: { site: Site; blocked: string | undefined }) {
  const { save, done } = useSiteUpdate(site);
  const now = siteForm(site.config);
  const [typed, setTyped] = useState<Partial<typeof now>>({});
  const form = { ...now, ...typed };
  const set = (change: Partial<typeof now>): void => setTyped((old) => ({ ...old, ...change }));
  const problems = siteProblems(form);
  const same = JSON.stringify(form) === JSON.stringify(now);
  return (
    <FormDialog
      label="Settings…"
      labelFor={`of ${site.name}`}
      blocked={blocked}
      title={`Settings of ${site.name}`}
      note="They apply to what starts after you save them."
      send="Save"
      wrong={Object.keys(problems).length > 0 ? "Check the values above." : same ? "Nothing is changed yet." : undefined}
      failed="The settings were not saved"
      act={() => save(siteConfig(form, site.config))}
      done={() => {
        setTyped({});
        done();
      }}
    >
      <TextField label="Changing runs at once, at most" inputMode="numeric" className="w-36" value={form.maxRuns} set={(maxRuns) => set({ maxRuns })} problem={problems.maxRuns} />
      <TextField
        label="Lease, seconds"
        inputMode="decimal"
        className="w-36"
        value={form.lease}
        set={(lease) => set({ lease })}
        hint="How long an executor keeps a run without contact to the control plane"
        problem={problems.lease}
      />
      <CheckField label="A second person must approve each job" checked={form.secondPerson} set={(secondPerson) => set({ secondPerson })} />
    </FormDialog>
  );
}

function AddSite({ me }: { me: Me }) {
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const problem = siteNameProblem(name.trim());
  return (
    <FormDialog
      label="Add a site"
      look="primary"
      blocked={missingFleetAdmin(me)}
      title="Add a site"
      note="A site is one private network. It is empty until you enrol an executor inside it."
      wrong={name.trim() === "" ? "Give a name." : problem && "Check the name above."}
      failed="The site was not added"
      act={() => body(api.POST("/v1/sites", { body: { name: name.trim() } }))}
      done={() => {
        setName("");
        void queries.invalidateQueries({ queryKey: sitesQuery.queryKey });
      }}
    >
      <TextField label="Name" value={name} set={setName} problem={name.trim() === "" ? undefined : problem} />
    </FormDialog>
  );
}
