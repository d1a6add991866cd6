import { useQueryClient } from "@tanstack/react-query";
import { Fragment, useState } from "react";

import { api, body } from "../api/client";
import type { Executor, Me, Site } from "../api/types";
import { confirmers, holdsLastKey, revocationNote } from "../lib/executors";
import { nameOf, words } from "../lib/format";
import { missingRole } from "../lib/roles";
import { TextField } from "./fields";
import { FormDialog } from "./FormDialog";
import { ExecutorStatus } from "./Status";
import { Age } from "./ui";

interface Props {
  executors: Executor[];
  caption: string;
  me: Me;
  sites: Site[];
  /** Executors of several sites are listed: each says of which it is. */
  mixed?: boolean;
}

/** Which executors are enrolled, which are online, what they hold. */
export function ExecutorTable({ executors, caption, me, sites, mixed = false }: Props) {
  return (
    <div className="overflow-x-auto" tabIndex={0} role="region" aria-label={`${caption}, scrollable`}>
      <table role="table" className="grid-table cards">
        <caption className="sr-only">{caption}</caption>
        <thead>
          <tr role="row">
            <th scope="col">Name</th>
            <th scope="col">Status</th>
            {mixed && <th scope="col">Site</th>}
            <th scope="col">Runs held</th>
            <th scope="col">Version</th>
            <th scope="col">Last seen</th>
            <th scope="col">Enrolled</th>
            <th scope="col">
              <span className="sr-only">Actions</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {executors.map((executor) => (
            <Fragment key={executor.id}>
              <tr role="row" data-row className="parted">
                <td role="cell" className="font-medium whitespace-normal!">
                  {executor.name}
                </td>
                <td role="cell">
                  <ExecutorStatus state={status(executor)} />
                </td>
                {mixed && <td role="cell">{nameOf(sites, executor.site_id)}</td>}
                <td role="cell">
                  <span className="text-soft rows:hidden">runs held </span>
                  <span className="mono">{executor.runs_held}</span>
                </td>
                <td role="cell">
                  <span className="text-soft rows:hidden">version </span>
                  <span className="mono">{executor.version}</span>
                </td>
                <td role="cell">
                  <span className="text-soft rows:hidden">last seen </span>
                  <Age at={executor.seen_at} />
                </td>
                <td role="cell">
                  <span className="text-soft rows:hidden">enrolled </span>
                  <Age at={executor.enrolled_at} />
                </td>
                <td role="cell" className="rows:text-right">
                  {executor.state !== "revoked" && <Revoke executor={executor} all={executors} me={me} site={nameOf(sites, executor.site_id)} />}
                </td>
              </tr>
              <tr role="row" className="details">
                <td role="cell" colSpan={mixed ? 8 : 7} className="text-soft h-auto! pb-2! whitespace-normal!">
                  {executor.state === "joining" && <Confirm executor={executor} all={executors} site={nameOf(sites, executor.site_id)} />}
                  <dl className="grid grid-cols-[auto_minmax(0,1fr)] gap-x-3 gap-y-0.5">
                    <dt className="text-faint">Job kinds</dt>
                    <dd>{executor.kinds.map(words).join(", ")}</dd>
                    <dt className="text-faint">Fingerprint</dt>
                    <dd className="mono select-all">{executor.fingerprint}</dd>
                  </dl>
                </td>
              </tr>
            </Fragment>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** How a person admits one, in the words of `rackhand doctor`. What this page shows as its fingerprint came from the control plane. */
function Confirm({ executor, all, site }: { executor: Executor; all: Executor[]; site: string }) {
  const where = confirmers(executor, all);
  return (
    <p className="text-ink pb-1.5">
      {where === "" ? (
        `No other executor of ${site} is active. One that holds the key of the site confirms another; the first one of a site makes the key once it runs.`
      ) : (
        <>
          Until its fingerprint is confirmed it takes no work. On the machine of {where}, run <code className="mono">rackhand-executor confirm --data DIR FINGERPRINT</code> with the data directory of that executor and the fingerprint that{" "}
          <code className="mono">enrol</code> printed on the machine of {executor.name}.
        </>
      )}
    </p>
  );
}

function Revoke({ executor, all, me, site }: { executor: Executor; all: Executor[]; me: Me; site: string }) {
  const queries = useQueryClient();
  const [typed, setTyped] = useState("");
  return (
    <FormDialog
      label="Revoke…"
      labelFor={executor.name}
      look="small"
      danger
      blocked={missingRole(me, "admin", executor.site_id, site)}
      title={`Revoke ${executor.name}`}
      note={revocationNote(executor, all, site)}
      send="Revoke"
      wrong={typed === executor.name ? undefined : `Type ${executor.name} to revoke it.`}
      failed="It was not revoked"
      act={() => body(api.DELETE("/v1/executors/{id}", { params: { path: { id: executor.id } } }))}
      done={() => {
        setTyped("");
        void queries.invalidateQueries({ queryKey: ["executors"] });
        void queries.invalidateQueries({ queryKey: ["sites"] });
      }}
    >
      <TextField label="Name of the executor" value={typed} set={setTyped} hint={holdsLastKey(executor, all) ? `Type ${executor.name} to lose the key of ${site}` : `Type ${executor.name}`} />
    </FormDialog>
  );
}

function status(executor: Executor): "online" | "offline" | "joining" | "revoked" {
  if (executor.state !== "active") return executor.state;
  return executor.online ? "online" : "offline";
}
