/** One server: what it is, how it is, its firmware, its BMC and what happened to it lately. */
import { useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams } from "@tanstack/react-router";

import { api, body } from "../api/client";
import { credentialsQuery, meQuery, serverQuery } from "../api/queries";
import type { Credential, FirmwareComponent, LastFailure, Server } from "../api/types";
import { BootDialog } from "../components/BootDialog";
import { EventList } from "../components/EventList";
import { FormDialog } from "../components/FormDialog";
import { InventoryButton } from "../components/InventoryButton";
import { PowerDialog } from "../components/PowerDialog";
import { HealthStatus, PowerStatus, Shape, Status } from "../components/Status";
import { Age, Button, Empty, Facts, JobLink, Loading, None, PageHead, Panel, ProblemNote, Unread } from "../components/ui";
import { saveDraft } from "../lib/draft";
import { count, generation, STALE_MS, withoutName, words } from "../lib/format";
import { missingRole } from "../lib/roles";

export function ServerPage() {
  const { id } = useParams({ from: "/signed-in/servers/$id" });
  const { data: server, error, isPending, refetch } = useQuery(serverQuery(id));
  if (isPending) return <Loading what="the server" />;
  if (server === undefined) return <Unread what="This server cannot be shown" error={error} retry={() => void refetch()} list={<Link to="/servers" className="link">All servers</Link>} />;
  return <Loaded key={id} server={server} error={error} />;
}

function Loaded({ server, error }: { server: Server; error: unknown }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const navigate = useNavigate();
  const update = (): void => {
    const draft = saveDraft({
      siteId: server.site_id,
      site: server.site,
      targets: [{ id: server.id, name: server.name, model: server.model, generation: server.generation }],
      origin: "from its own page",
    });
    void navigate({ to: "/jobs/new", search: { draft } });
  };
  const { data: credentials } = useQuery(credentialsQuery(server.site_id));
  const credential = credentials?.items.find((item) => item.id === server.bmc.credential_id);
  const forbidden = missingRole(me, "operator", server.site_id, server.site);
  const unreadable = Object.entries(server.unreadable);
  return (
    <>
      <PageHead
        title={server.name}
        meta={
          <>
            <span className="flex items-center gap-2">
              <span className="eyebrow">Power</span> <PowerStatus state={server.power} />
            </span>
            <span className="flex items-center gap-2">
              <span className="eyebrow">Health</span> <HealthStatus state={server.health} />
            </span>
            <span>
              last seen <Age at={server.seen_at} staleMs={STALE_MS} />
            </span>
            {server.active_job && (
              <span className="text-info flex items-center gap-1">
                <Shape tone="busy" /> <JobLink id={server.active_job}>job in progress</JobLink>
              </span>
            )}
          </>
        }
        actions={
          <>
            <InventoryButton siteId={server.site_id} targets={[server.id]} blocked={forbidden} />
            <PowerDialog siteId={server.site_id} servers={[server]} blocked={forbidden} />
            <BootDialog siteId={server.site_id} servers={[server]} blocked={forbidden} />
            <Button look="primary" blocked={forbidden} explain onClick={update}>
              Update firmware
            </Button>
          </>
        }
      />
      {error !== null && (
        <div className="pb-3">
          <ProblemNote error={error} what="What is shown may be out of date" />
        </div>
      )}
      {server.last_failure && <Failure last={server.last_failure} name={server.name} />}
      {unreadable.length > 0 && (
        <div role="status" className="border-warn/40 bg-warn-wash mb-4 rounded-md border px-3 py-2.5">
          <p className="flex items-center gap-2 font-medium">
            <Shape tone="warn" /> Partly read: {count(unreadable.length, "part")} of this server did not answer
          </p>
          <ul className="mt-1 pl-6">
            {unreadable.map(([part, why]) => (
              <li key={part}>
                <code className="mono">{part}</code>: {why}
              </li>
            ))}
          </ul>
        </div>
      )}
      <div className="grid items-start gap-4 xl:grid-cols-[minmax(0,340px)_minmax(0,1fr)]">
        <div className="flex flex-col gap-4">
          <Panel title="Identity">
            <Facts
              rows={[
                ["Site", server.site],
                ["Vendor", server.vendor ?? <None />],
                ["Model", server.model ?? <None />],
                ["Service tag", server.service_tag ? <span className="mono select-all">{server.service_tag}</span> : <None />],
                ["Tags", server.tags.join(", ") || <None />],
              ]}
            />
          </Panel>
          <Panel title="BMC endpoint">
            <Facts
              rows={[
                ["Address", <span className="mono break-all select-all">{server.bmc.url}</span>],
                ["IPMI", server.bmc.ipmi ? <span className="mono break-all select-all">{server.bmc.ipmi}</span> : <None />],
                ["Generation", server.generation ? generation(server.generation) : <None />],
                ["Firmware", server.bmc_version ? <span className="mono">{server.bmc_version}</span> : <None />],
                [
                  "TLS key",
                  server.bmc.url.startsWith("ipmi://") ? (
                    <None />
                  ) : server.bmc.spki_sha256 ? (
                    <span className="mono break-all" title="SHA-256 of the SubjectPublicKeyInfo">
                      {server.bmc.spki_sha256}
                    </span>
                  ) : (
                    <Status tone="warn" word="not pinned yet" />
                  ),
                ],
                [
                  "Credential",
                  server.bmc.credential ? (
                    <span className="flex flex-col items-start gap-1.5">
                      <CredentialName name={server.bmc.credential} credential={credential} />
                      {(credential?.suspended || BARRED.includes(server.last_failure?.code ?? "")) && <TryAgain server={server} blocked={forbidden} />}
                    </span>
                  ) : (
                    <Status tone="warn" word="none" />
                  ),
                ],
                ["Executor", server.bmc.owner_name ?? "none yet"],
                ["Capabilities", server.capabilities.map(words).join(", ") || <None />],
              ]}
            />
          </Panel>
        </div>
        <div className="flex min-w-0 flex-col gap-4">
          <Firmware components={server.components} seenAt={server.seen_at} />
          <Panel
            title="Recent runs and events"
            aside={
              <Link to="/events" search={{ server: server.id }} className="link">
                All events
              </Link>
            }
          >
            <EventList filter={{ server: server.id }} name={server.name} place="max-h-[360px] overflow-auto" />
          </Panel>
        </div>
      </div>
    </>
  );
}

/** Why the latest run on this server did not end well; gone once one does. */
function Failure({ last, name }: { last: LastFailure; name: string }) {
  return (
    <div role="status" className="border-bad/40 bg-bad-wash mb-4 flex flex-wrap items-baseline gap-x-4 gap-y-1 rounded-md border px-3 py-2.5">
      <p className="flex flex-1 basis-96 items-start gap-2">
        <span className="pt-0.5">
          <Shape tone="bad" />
        </span>
        <span>
          <span className="font-medium">The latest run did not succeed</span> <Age at={last.at} />: {withoutName(last.detail, name)}
        </span>
      </p>
      <a className="link" href={`/errors/${encodeURIComponent(last.code)}`} target="_blank" rel="noreferrer">
        {last.code}: what to do
      </a>
      <Link to="/jobs/$id" params={{ id: last.job_id }} search={{ run: last.run_id }} className="link">
        Go to the run
      </Link>
    </div>
  );
}

/** Failures after which a credential may be barred from this BMC. */
const BARRED = ["bmc-auth-failed", "credential-suspended"];

function TryAgain({ server, blocked }: { server: Server; blocked: string | undefined }) {
  const queries = useQueryClient();
  return (
    <FormDialog
      label="Let it be tried again…"
      blocked={blocked}
      title={`Try the credential on ${server.name} again`}
      note="Use this only if the stored password is right, such as after the BMC's own was set back to it: executors will present it to this BMC again, and if it is wrong, the BMC may lock the account. If it is wrong, seal a new version of the credential instead. The refusals by this BMC no longer count, nor do those by BMCs that no longer use the credential. If fewer than two by others are left, the credential is no longer suspended for any server."
      send="Let it be tried again"
      failed="Nothing was changed"
      act={() => body(api.POST("/v1/servers/{id}/credential/try-again", { params: { path: { id: server.id } } }))}
      done={() => void queries.invalidateQueries({ queryKey: ["credentials"] })}
      outcome={({ changed, suspended }) => {
        if (!changed) return `The BMC of ${server.name} has refused nothing that counts: nothing was changed.`;
        return `No refusal by the BMC of ${server.name} counts any more. ${suspended ?? "Read its inventory: that presents the credential."}`;
      }}
    />
  );
}

/** By its name; suspended ones say so. */
function CredentialName({ name, credential }: { name: string; credential: Credential | undefined }) {
  return (
    <span className="flex flex-wrap items-center gap-x-3">
      {name}
      {credential && `, version ${credential.version}`}
      {credential?.suspended && <Status tone="bad" word="suspended" />}
    </span>
  );
}

function Firmware({ components, seenAt }: { components: FirmwareComponent[]; seenAt: string | null | undefined }) {
  return (
    <Panel title={`Firmware (${components.length})`} aside={<>read <Age at={seenAt} /></>}>
      {components.length === 0 ? (
        <Empty title="No firmware known">An inventory run reads it from the BMC.</Empty>
      ) : (
        <div className="overflow-x-auto" tabIndex={0} role="region" aria-label="Firmware list, scrollable">
          <table role="table" className="grid-table cards">
            <caption className="sr-only">Installed firmware</caption>
            <thead>
              <tr role="row">
                <th scope="col">Component</th>
                <th scope="col">Version</th>
                <th scope="col">Software id</th>
                <th scope="col">Component id</th>
                <th scope="col">Updateable</th>
              </tr>
            </thead>
            <tbody>
              {components.map((component) => (
                <tr key={component.key} role="row" data-row>
                  <td role="cell" className="py-1.5! whitespace-normal!">
                    {component.name}
                  </td>
                  <td role="cell" className="mono">
                    {component.version}
                    {component.inactive && <span className="text-soft"> ({component.inactive})</span>}
                  </td>
                  <td role="cell" className="mono">
                    <span className="text-soft font-sans rows:hidden">software id </span>
                    {component.software_id ?? <None />}
                  </td>
                  <td role="cell" className="mono text-soft py-1.5! break-all whitespace-normal!">
                    {component.key}
                  </td>
                  <td role="cell">
                    <span className="text-soft rows:hidden">updateable: </span>
                    {component.updateable ? "yes" : <span className="text-faint">no</span>}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}
