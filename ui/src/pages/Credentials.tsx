/**
 * The credentials: which there are and how they stand, without their secret parts. A password is never typed into a
 * page: the page comes from the control plane, which must not be able to read it. So this page writes the command
 * that seals it on the person's own machine (docs/adr/0029).
 */
import { useQuery, useSuspenseQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";
import { useState } from "react";

import { credentialsQuery, meQuery, sitesQuery } from "../api/queries";
import type { Credential, Me, Site } from "../api/types";
import { Command } from "../components/Command";
import { SelectField, TextField } from "../components/fields";
import { FormDialog } from "../components/FormDialog";
import { useFingerprint } from "../components/SiteKey";
import { Status } from "../components/Status";
import { Age, Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { count, nameOf, number } from "../lib/format";
import { missingRole } from "../lib/roles";
import { credentialCommand } from "../lib/shell";
import { compareKey } from "../lib/siteKey";

export function Credentials() {
  const { site: chosen } = useSearch({ from: "/signed-in/credentials" });
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const { data, error, isPending, refetch } = useQuery(credentialsQuery(chosen));
  const credentials = data?.items ?? [];
  return (
    <>
      <PageHead title="Credentials" meta={data && count(credentials.length, "credential")} actions={<SealDialog key={chosen} me={me} sites={sites?.items ?? []} site={chosen} />} />
      <p className="text-soft max-w-3xl pb-3">
        Accounts on the BMCs. Their passwords are sealed to the key of a site on the machine of the person who sets them; the control plane stores what only the executors of that site can open.
      </p>
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={data ? "The list is out of date" : "The credentials cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {isPending && <Loading what="the credentials" />}
      {data && credentials.length === 0 && (
        <div className="panel">
          <Empty title="No credential yet">An executor needs one to log in to a BMC. Collect the TLS keys of the BMCs first, then choose “Set a credential”: it shows both commands.</Empty>
        </div>
      )}
      {credentials.length > 0 && (
        <div className="panel shrink-0 overflow-x-auto" tabIndex={0} role="region" aria-label="List of credentials, scrollable">
          <table role="table" className="grid-table cards">
            <caption className="sr-only">Credentials</caption>
            <thead>
              <tr role="row">
                <th scope="col">Name</th>
                <th scope="col">State</th>
                <th scope="col">Site</th>
                <th scope="col">Version</th>
                <th scope="col">Sealed</th>
                <th scope="col">Last refused</th>
                <th scope="col">
                  <span className="sr-only">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {credentials.map((credential) => (
                <Row key={credential.id} credential={credential} me={me} sites={sites?.items ?? []} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Row({ credential, me, sites }: { credential: Credential; me: Me; sites: Site[] }) {
  return (
    <>
      <tr role="row" data-row className="parted">
        <td role="cell" className="font-medium whitespace-normal!">
          {credential.name}
        </td>
        <td role="cell">
          {credential.suspended ? (
            <Status tone="bad" word="suspended: BMCs refused it" title="No executor presents it until it is sealed anew, or until someone lets it be tried again on a server that refused it." />
          ) : (
            <Status tone="ok" word="active" />
          )}
        </td>
        <td role="cell" className="whitespace-normal!">
          {nameOf(sites, credential.site_id)}
        </td>
        <td role="cell" className="mono">
          <span className="font-sans rows:hidden">version </span>
          {credential.version}
        </td>
        <td role="cell">
          <span className="text-soft rows:hidden">sealed </span>
          <Age at={credential.created_at} />
        </td>
        <td role="cell">
          <span className="text-soft rows:hidden">last refused </span>
          <Age at={credential.refused_at} />
        </td>
        <td role="cell" className="rows:text-right">
          <SealDialog me={me} sites={sites} site={credential.site_id} name={credential.name} />
        </td>
      </tr>
      <tr role="row" className="details">
        <td role="cell" colSpan={7} className="text-soft h-auto! pb-2! whitespace-normal!">
          <Addresses of={credential} />
        </td>
      </tr>
    </>
  );
}

/** For which BMCs it is sealed, as whoever sealed it says. */
function Addresses({ of: { addresses: list, address_count: all } }: { of: Credential }) {
  if (!list || typeof all !== "number") return <span>BMC addresses: not stored</span>;
  return (
    <details>
      <summary className="cursor-pointer">{count(all, "BMC address", "BMC addresses")}</summary>
      <ul className="mono grid max-h-60 grid-cols-[repeat(auto-fill,minmax(min(100%,15rem),1fr))] gap-x-4 overflow-y-auto pt-1 break-all" tabIndex={0} aria-label="BMC addresses">
        {list.map((address, place) => (
          <li key={place}>{address}</li>
        ))}
        {all > list.length && <li className="font-sans">… and {number(all - list.length)} more</li>}
      </ul>
    </details>
  );
}

interface SealProps {
  me: Me;
  sites: Site[];
  /** The site to begin with; the only choice where `name` is given. */
  site: string | undefined;
  /** The credential to replace; absent: a new one. */
  name?: string;
}

/** Writes the command that seals a password. */
function SealDialog({ me, sites, site: given, name: fixed }: SealProps) {
  const [name, setName] = useState(fixed ?? "");
  const [user, setUser] = useState("");
  const [key, setKey] = useState("");
  const [picked, setPicked] = useState<string>();
  const forbidden = (item: Site): string | undefined => missingRole(me, "operator", item.id, item.name);
  const allowed = sites.filter((item) => forbidden(item) === undefined);
  // To begin with, one in which something can be sealed.
  const site = sites.find((item) => item.id === (picked ?? given)) ?? allowed.find((item) => item.public_key) ?? allowed[0] ?? sites[0];
  const print = useFingerprint(site?.public_key);
  const compared = key.trim() === "" || !site?.public_key ? undefined : compareKey(site.public_key, print, key);
  const blocked = site === undefined ? "There is no site yet. Add one first." : forbidden(site);
  return (
    <FormDialog
      label={fixed === undefined ? "Set a credential" : "Replace…"}
      labelFor={fixed}
      look={fixed === undefined ? "primary" : "small"}
      // With several sites the choice inside may be one in which it is allowed.
      blocked={fixed !== undefined || allowed.length === 0 ? blocked : undefined}
      title={fixed === undefined ? "Set a credential" : `Replace the password of ${fixed}`}
      note="Type the password on your own machine, not here: this page comes from the control plane, and the control plane must not be able to read it. The command requests the password and seals it to the key of the site."
      wide
    >
      <div className="grid gap-3 sm:grid-cols-3">
        {fixed === undefined ? (
          <TextField label="Name" value={name} set={setName} hint="An existing name replaces that one" />
        ) : (
          <TextField label="Name" value={fixed} set={() => undefined} readOnly />
        )}
        <SelectField label="Site" value={site?.id ?? ""} set={setPicked} options={sites.filter((item) => fixed === undefined || item.id === given).map((item) => [item.id, item.name] as const)} problem={blocked} />
        <TextField label="Account on the BMCs" value={user} set={setUser} hint="Over IPMI at most 16 bytes" />
      </div>
      <TextField
        label="Key of the site, as an executor prints it"
        mono
        value={key}
        set={setKey}
        hint={
          site && !site.public_key
            ? "This site has no key yet: enrol and start its first executor."
            : "rackhand-executor site-key --data DIR. Do not copy it from this UI: comparing would prove nothing."
        }
        problem={
          compared === "other"
            ? "This is not the key that the control plane shows. Seal nothing: someone may be in the middle."
            : compared === "no key"
              ? "A key is 44 characters of base64."
              : undefined
        }
      />
      <ol className="flex list-decimal flex-col gap-3 pl-5">
        <li>
          On the machine of an executor: collect the TLS keys of the BMCs. Compare each <code className="mono">certificate</code> that is printed with the SHA-256 fingerprint that the BMC's own page or console shows.
          <Command label="Command that collects keys" text="rackhand-executor pins web-1=https://10.0.0.17 > servers.json" />
        </li>
        <li>
          On your machine, with that file: seal the password. It works for the BMCs in the file, no others: when you replace a credential, name all its BMCs, old and new.
          <Command label="Command that seals the password" text={credentialCommand({ name: name.trim(), site: site?.name ?? "", user: user.trim(), siteKey: compared === "same" ? (site?.public_key ?? "") : "" })} />
        </li>
      </ol>
    </FormDialog>
  );
}
