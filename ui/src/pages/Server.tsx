/** One server: what it is, how it is, its firmware, its BMC and what happened to it lately. */
import { useQuery, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useParams } from "@tanstack/react-router";
import { useState } from "react";

import { executorsQuery, meQuery, serverQuery } from "../api/queries";
import type { Event, FirmwareComponent, Server } from "../api/types";
import { BootDialog } from "../components/BootDialog";
import { InventoryButton } from "../components/InventoryButton";
import { HealthStatus, PowerStatus, Shape, Status } from "../components/Status";
import { Age, Button, Empty, Facts, JobLink, Loading, None, PageHead, Panel, ProblemNote, Unread, useNow } from "../components/ui";
import { saveDraft } from "../lib/draft";
import { clock, count, generation, STALE_MS, withoutName, words } from "../lib/format";
import { missingRole } from "../lib/roles";
import { useEventLog } from "../live/log";

export function ServerPage() {
  const { id } = useParams({ from: "/signed-in/servers/$id" });
  const { data: server, error, isPending, refetch } = useQuery(serverQuery(id));
  if (isPending) return <Loading what="the server" />;
  if (server === undefined) return <Unread what="This server cannot be shown" error={error} retry={() => void refetch()} />;
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
  const { data: executors } = useQuery(executorsQuery(server.site_id));
  const owner = executors?.items.find((executor) => executor.id === server.bmc.owner)?.name ?? server.bmc.owner;
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
                <Shape tone="busy" /> <JobLink id={server.active_job}>a job works on it</JobLink>
              </span>
            )}
          </>
        }
        actions={
          <>
            <InventoryButton siteId={server.site_id} targets={[server.id]} blocked={forbidden} />
            <BootDialog server={server} blocked={forbidden} />
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
                  "TLS key pin",
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
                ["Credential", server.bmc.credential_id ? <span className="mono">{server.bmc.credential_id.slice(-12)}</span> : <Status tone="warn" word="none" />],
                ["Owner", owner ? `${owner}, epoch ${server.bmc.owner_epoch}` : "no executor yet"],
                ["Able to", server.capabilities.map(words).join(", ") || <None />],
              ]}
            />
          </Panel>
        </div>
        <div className="flex min-w-0 flex-col gap-4">
          <Firmware components={server.components} seenAt={server.seen_at} />
          <Recent id={server.id} name={server.name} />
        </div>
      </div>
    </>
  );
}

function Firmware({ components, seenAt }: { components: FirmwareComponent[]; seenAt: string | null | undefined }) {
  return (
    <Panel title={`Firmware (${components.length})`} aside={<>read <Age at={seenAt} /></>}>
      {components.length === 0 ? (
        <Empty title="No firmware known">An inventory run reads it from the BMC.</Empty>
      ) : (
        <div className="max-h-[440px] overflow-auto" tabIndex={0} role="region" aria-label="Firmware list, scrollable">
          <table className="grid-table">
            <caption className="sr-only">Installed firmware</caption>
            <thead className="sticky top-0">
              <tr>
                <th scope="col">Component</th>
                <th scope="col">Version</th>
                <th scope="col">Software id</th>
                <th scope="col">Address</th>
                <th scope="col">Updateable</th>
              </tr>
            </thead>
            <tbody>
              {components.map((component) => (
                <tr key={component.key} data-row>
                  <td className="max-w-64" title={component.name}>
                    {component.name}
                  </td>
                  <td className="mono">{component.version}</td>
                  <td className="mono">{component.software_id ?? <None />}</td>
                  <td className="mono text-soft max-w-44" title={component.key}>
                    {component.key}
                  </td>
                  <td>{component.updateable ? "yes" : <span className="text-faint">no</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

/** How many events, log lines included, are read at once. */
const NEWEST = 200;

function Recent({ id, name }: { id: string; name: string }) {
  const log = useEventLog({ server: id }, { newest: NEWEST });
  const now = useNow();
  const [loading, setLoading] = useState(false);
  // The lines of a run's log stand on its job's page.
  const newest = log.items.filter((event) => event.kind !== "run.log").reverse();
  const older = async (): Promise<void> => {
    setLoading(true);
    await log.loadOlder();
    setLoading(false);
  };
  return (
    <Panel title="Recent runs and events" aside={log.complete ? undefined : "reading…"}>
      {log.error !== undefined && (
        <div className="p-3">
          <ProblemNote error={log.error} what="The events cannot be read" retry={log.retry} />
        </div>
      )}
      {log.complete && newest.length === 0 && !log.older && <Empty title="Nothing has happened yet" />}
      {(newest.length > 0 || log.older) && (
        <div className="max-h-[360px] overflow-auto" tabIndex={0} role="region" aria-label="Events, scrollable">
          <ul>
            {newest.map((event) => (
              <EventRow key={event.cursor} event={event} name={name} now={now} />
            ))}
          </ul>
          {log.older && (
            <div className="p-2 text-center">
              <Button busy={loading} onClick={() => void older()}>
                Show older events
              </Button>
            </div>
          )}
        </div>
      )}
    </Panel>
  );
}

function EventRow({ event, name, now }: { event: Event; name: string; now: number }) {
  const message = withoutName(event.message, name);
  return (
    <li className="border-line grid grid-cols-[130px_150px_minmax(0,1fr)_auto] items-baseline gap-3 border-b px-3 py-1.5 last:border-b-0 max-lg:grid-cols-[130px_minmax(0,1fr)]">
      <time dateTime={event.at} className="mono text-soft">
        {clock(event.at, now)}
      </time>
      <span className="mono text-faint truncate max-lg:hidden">{event.kind}</span>
      <span className={event.level === "error" ? "text-bad" : event.level === "warn" ? "text-warn" : ""}>
        {event.level === "error" || event.level === "warn" ? `${event.level}: ` : ""}
        {message}
        {event.late && <span className="text-faint"> (late)</span>}
      </span>
      <span className="text-xs max-lg:hidden">
        {event.job_id && (
          <Link
            to="/jobs/$id"
            params={{ id: event.job_id }}
            search={event.run_id ? { run: event.run_id } : {}}
            className="link text-soft"
            aria-label={`Job of: ${event.message}`}
          >
            job
          </Link>
        )}
      </span>
    </li>
  );
}
