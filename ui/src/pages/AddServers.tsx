/**
 * Registers servers: from the list that `rackhand-executor pins` printed inside the site, or typed. A person
 * confirms that the certificate of each BMC was compared; nobody else can tell whether it is the BMC's own.
 */
import { useMutation, useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useState } from "react";

import { api, body } from "../api/client";
import { credentialsQuery, meQuery, registeredQuery, sitesQuery } from "../api/queries";
import type { Credential, Site } from "../api/types";
import { Command } from "../components/Command";
import { CheckField, SelectField, TextField } from "../components/fields";
import { InventoryButton } from "../components/InventoryButton";
import { PasteList } from "../components/PasteList";
import { Shape } from "../components/Status";
import { Button, Empty, Loading, PageHead, Panel, ProblemNote } from "../components/ui";
import { keepTyped, loadTyped } from "../lib/draft";
import { count } from "../lib/format";
import { missingRole } from "../lib/roles";
import { MAX_SERVERS, NEW_SERVER, parseServers, refusal, SERVERS_EXAMPLE, type ServerForm, type ServerProblems, serverProblems, taken, toItem, twice } from "../lib/servers";

const PAGE = "add-servers";

interface Typed {
  rows: ServerForm[];
  credential: string;
  compared: boolean;
  replace: boolean;
}

const NOTHING: Typed = { rows: [NEW_SERVER], credential: "", compared: false, replace: false };

export function AddServers() {
  const { site: chosen } = useSearch({ from: "/signed-in/servers/add" });
  const { data: sites, error, refetch } = useQuery(sitesQuery);
  const navigate = useNavigate({ from: "/servers/add" });
  const site = sites?.items.find((item) => item.id === chosen) ?? sites?.items[0];
  return (
    <>
      <PageHead title="Add servers" meta={site && `in ${site.name}`} />
      {error && !sites && <ProblemNote error={error} what="The sites cannot be read" retry={() => void refetch()} />}
      {!sites && !error && <Loading what="the sites" />}
      {sites && site === undefined && (
        <div className="panel">
          <Empty title="A server belongs to a site, and there is none yet">
            <Link to="/sites" className="link">
              Go to the sites
            </Link>{" "}
            and add the first one.
          </Empty>
        </div>
      )}
      {sites && site && <Form key={site.id} site={site} sites={sites.items} choose={(id) => void navigate({ search: { site: id }, replace: true })} />}
    </>
  );
}

/** What the control plane refused, by row. */
type Refusals = ({ fields: ServerProblems; rest: string } | undefined)[];

function Form({ site, sites, choose }: { site: Site; sites: Site[]; choose: (id: string) => void }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const queries = useQueryClient();
  const { data: credentials } = useQuery(credentialsQuery(site.id));
  const known = credentials?.items ?? [];
  const [typed, setTyped] = useState<Typed>(() => loadTyped<Typed>(PAGE) ?? NOTHING);
  const [tried, setTried] = useState(false);
  const [refused, setRefused] = useState<Refusals>([]);
  const [added, setAdded] = useState<[string, string][]>([]);
  const [changed, setChanged] = useState<[string, string][]>([]);
  useEffect(() => keepTyped(PAGE, typed === NOTHING ? undefined : typed), [typed]);
  const set = (change: Partial<Typed>): void => setTyped((old) => ({ ...old, ...change }));
  const { rows, credential, compared, replace } = typed;
  const change = (index: number, row: ServerForm): void => {
    set({ rows: rows.map((old, at) => (at === index ? row : old)), compared: row.pin === rows[index]?.pin && compared });
    setRefused((old) => old.map((item, at) => (at === index ? undefined : item)));
  };
  const remove = (index: number): void => {
    set({ rows: rows.filter((_, at) => at !== index) });
    setRefused((old) => old.filter((_, at) => at !== index));
  };

  // Before anything is replaced, people see what.
  const { data: registered } = useQuery({ ...registeredQuery(site.id), enabled: replace });
  const replaced = rows.map((row) => (replace && registered ? taken(row, registered, site.name) : {}));

  const idOf = (row: ServerForm): string | undefined => known.find((item) => item.name === (row.credential || credential))?.id;
  const strange = rows.find((row) => row.credential !== "" && idOf(row) === undefined);
  const doubled = twice(rows);
  const problems = rows.map((row, index) => ({ ...serverProblems(row), ...doubled[index] }));
  const withKey = rows.some((row) => row.pin.trim() !== "");
  const missing = problems.some((item) => Object.keys(item).length > 0)
    ? "Some fields are not valid yet."
    : strange !== undefined
      ? `${site.name} has no credential ${strange.credential}, which ${strange.name} names.`
      : withKey && !compared
        ? "Confirm that you compared the certificates."
        : undefined;
  const forbidden = missingRole(me, "operator", site.id, site.name);

  const send = useMutation({
    mutationFn: async () => {
      // Registering an existing name changes that server: nothing is changed unasked that someone else has set up.
      const registered = await queries.fetchQuery({ ...registeredQuery(site.id), staleTime: 0 });
      const held = rows.map((row) => (replace ? {} : taken(row, registered, site.name)));
      const fresh = held.flatMap((fields, index) => (fields.name === undefined ? [index] : []));
      const servers = fresh.flatMap((index) => (rows[index] ? [toItem(rows[index], idOf(rows[index]))] : []));
      const next: Refusals = held.map((fields) => (fields.name === undefined ? undefined : { fields, rest: "It was not changed. To change it, choose below to replace it." }));
      if (servers.length === 0) return { ids: {}, changes: {}, next };
      const result = await body(api.POST("/v1/servers/bulk", { body: { site_id: site.id, servers, replace } }));
      for (const item of result.refused) {
        const index = fresh[item.index];
        if (index !== undefined) next[index] = refusal(item.detail);
      }
      return { ids: result.ids, changes: result.changes ?? {}, next };
    },
    onSuccess: ({ ids, changes, next }) => {
      const left = rows.flatMap((row, index) => (next[index] === undefined ? [] : [[row, next[index]] as const]));
      setAdded((old) => [...old, ...Object.entries(ids)]);
      setChanged((old) => [...old, ...Object.entries(changes)]);
      setRefused(left.map(([, why]) => why));
      setTyped(left.length === 0 ? NOTHING : { ...typed, rows: left.map(([row]) => row) });
      setTried(false);
      void queries.invalidateQueries({ queryKey: ["servers"] });
      void queries.invalidateQueries({ queryKey: ["sites"] });
    },
  });

  return (
    <form
      className="flex max-w-[980px] flex-col gap-4"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (missing === undefined && forbidden === undefined && !send.isPending) send.mutate();
      }}
    >
      {added.length > 0 && <Added servers={added} changed={changed} site={site} forbidden={forbidden} />}
      <Panel title="Where and with what">
        <div className="grid gap-3 p-4 sm:grid-cols-2">
          <SelectField label="Site" value={site.id} set={choose} options={sites.map((item) => [item.id, item.name] as const)} problem={forbidden} />
          <SelectField
            label="Credential"
            value={known.some((item) => item.name === credential) ? credential : ""}
            set={(name) => set({ credential: name })}
            options={[["", "none yet"], ...known.map((item) => [item.name, item.name] as const)]}
            hint="It works for the BMCs that it was sealed for, no others"
          />
          <p className="text-soft sm:col-span-2">
            A new BMC requires a credential that was sealed for it.{" "}
            <Link to="/credentials" search={{ site: site.id }} className="link">
              Seal it
            </Link>{" "}
            before or after you add the servers. To replace one, use a file that names all its BMCs, old and new: BMCs that the file does not name can no longer be reached with it.
          </p>
        </div>
      </Panel>
      <Panel title={`Servers (${rows.length})`} aside={<PasteServers use={(list) => set({ rows: list, compared: false })} />}>
        <div className="flex flex-col gap-4 p-4">
          <div className="flex flex-col gap-2">
            <p className="text-soft">
              The machine of an executor collects the TLS key of each BMC. It sends no password. Run this there with your own names and addresses, and paste the content of servers.json:
            </p>
            <Command label="Command that collects keys" text="rackhand-executor pins web-1=https://10.0.0.17 web-2=ipmi://10.0.0.18 > servers.json" />
          </div>
          {rows.map((row, index) => (
            <Row
              // The place is all that a row being typed is known by.
              key={index}
              place={index + 1}
              form={row}
              problems={problems[index] ?? {}}
              refused={refused[index]}
              replaced={replaced[index] ?? {}}
              strict={tried}
              credentials={known}
              change={(next) => change(index, next)}
              remove={rows.length > 1 ? () => remove(index) : undefined}
            />
          ))}
          <div>
            <Button blocked={rows.length >= MAX_SERVERS ? `At most ${MAX_SERVERS} at once.` : undefined} onClick={() => set({ rows: [...rows, NEW_SERVER] })}>
              Add another
            </Button>
          </div>
        </div>
      </Panel>
      <div className="border-line flex flex-col gap-1 rounded-md border px-3 py-2.5">
        <CheckField label="Replace servers that are registered under these names, also their BMC addresses" checked={replace} set={(on) => set({ replace: on })} />
        <p className="text-soft pl-5.5">
          {replace ? (
            <>
              Credential, IPMI address and tags stay where a field is empty; <code className="mono">rackhand servers add NAME --bmc URL --clear WHAT</code> removes them. With another BMC address the
              IPMI address and what was read before are removed.
            </>
          ) : (
            "Otherwise a server whose name is taken is not changed, and the result says so."
          )}
        </p>
      </div>
      {withKey && (
        <div className="border-warn/40 bg-warn-wash flex flex-col gap-2 rounded-md border px-3 py-2.5">
          <p>
            Whoever answers in place of a BMC now is trusted later. Compare the value <code className="mono">certificate</code> that <code className="mono">rackhand-executor pins</code> printed for each
            BMC with the SHA-256 fingerprint of the certificate on the BMC's own web page or console. The TLS key above is another number.
          </p>
          <CheckField label="I compared the certificate of each BMC with what the BMC itself shows" checked={compared} set={(on) => set({ compared: on })} />
        </div>
      )}
      {send.error && <ProblemNote error={send.error} what="The servers were not added" />}
      <div className="flex flex-wrap items-center gap-3">
        <Button type="submit" look="primary" blocked={forbidden} explain busy={send.isPending}>
          {send.isPending ? "Adding…" : `Add ${count(rows.length, "server")}`}
        </Button>
        <span className={(tried && missing) || refused.some(Boolean) ? "text-bad" : "text-soft"} role={(tried && missing) || refused.some(Boolean) ? "alert" : undefined}>
          {tried && missing ? missing : refused.some(Boolean) ? `${count(refused.filter(Boolean).length, "server")} not added; see above why.` : "No BMC is contacted by this."}
        </span>
      </div>
    </form>
  );
}

const LABEL: Record<keyof ServerProblems, [string, string, string]> = {
  name: ["Name", "web-1", ""],
  address: ["BMC address", "https://10.0.0.17", "sm:col-span-2"],
  pin: ["TLS key (SHA-256)", "64 hex digits", "sm:col-span-4"],
  ipmi: ["Also over IPMI at", "host[:port], optional", ""],
  tags: ["Tags", "rack:7 lab, optional", "sm:col-span-2"],
};

interface RowProps {
  place: number;
  form: ServerForm;
  problems: ServerProblems;
  refused: { fields: ServerProblems; rest: string } | undefined;
  /** What sending this replaces. */
  replaced: ServerProblems;
  /** Also marks what is still empty. */
  strict: boolean;
  credentials: Credential[];
  change: (form: ServerForm) => void;
  remove: (() => void) | undefined;
}

function Row({ place, form, problems, refused, replaced, strict, credentials, change, remove }: RowProps) {
  const overIpmi = form.address.trim().startsWith("ipmi://");
  const shown = (field: keyof ServerProblems): string | undefined => refused?.fields[field] ?? (strict || form[field] !== "" ? problems[field] : undefined);
  const field = (name: keyof ServerProblems) => {
    const [label, placeholder, span] = LABEL[name];
    return (
      <TextField
        label={label}
        placeholder={placeholder}
        place={span}
        mono={name !== "name" && name !== "tags"}
        value={form[name]}
        set={(value) => change({ ...form, [name]: value })}
        problem={shown(name)}
        hint={replaced[name]}
      />
    );
  };
  return (
    <fieldset className="border-line rounded-md border px-3.5 pt-2 pb-3.5">
      <legend className="px-1.5 font-medium">{form.name.trim() || `Server ${place}`}</legend>
      {refused && refused.rest !== "" && (
        <p role="alert" className="text-bad pb-2">
          {refused.rest}
        </p>
      )}
      <div className="grid gap-x-3 gap-y-2.5 sm:grid-cols-4">
        {field("name")}
        {field("address")}
        <SelectField
          label="Credential"
          value={form.credential}
          set={(credential) => change({ ...form, credential })}
          options={[
            ["", "as above"],
            ...credentials.map((item) => [item.name, item.name] as const),
            ...(form.credential === "" || credentials.some((item) => item.name === form.credential) ? [] : [[form.credential, `${form.credential}: not there`] as const]),
          ]}
        />
        {(!overIpmi || form.pin !== "") && field("pin")}
        {(!overIpmi || form.ipmi !== "") && field("ipmi")}
        {field("tags")}
      </div>
      {remove && (
        <button type="button" className="link text-soft mt-2.5 text-xs" onClick={remove}>
          Remove {form.name.trim() || `server ${place}`} from this list
        </button>
      )}
    </fieldset>
  );
}

function PasteServers({ use }: { use: (rows: ServerForm[]) => void }) {
  return <PasteList of="servers" note="The content of servers.json, as rackhand-executor pins writes it." example={SERVERS_EXAMPLE} parse={parseServers} use={use} />;
}

function Added({ servers, changed, site, forbidden }: { servers: [string, string][]; changed: [string, string][]; site: Site; forbidden: string | undefined }) {
  return (
    <section role="status" aria-label="Added servers" className="border-ok/40 bg-raised flex flex-wrap items-center gap-x-4 gap-y-2 rounded-md border px-3 py-2.5">
      <p className="flex flex-1 basis-96 items-start gap-2">
        <span className="pt-0.5">
          <Shape tone="ok" />
        </span>
        <span>
          {count(servers.length, "server")} registered in {site.name}:{" "}
          {servers.slice(0, 12).map(([name, id], index) => (
            <span key={id}>
              {index > 0 && ", "}
              <Link to="/servers/$id" params={{ id }} className="link">
                {name}
              </Link>
            </span>
          ))}
          {servers.length > 12 && " …"}
          {changed.slice(0, 12).map(([name, text]) => (
            <span key={name} className="text-soft block">
              {name}: {text}
            </span>
          ))}
          {changed.length > 12 && <span className="text-soft block">The changes of {changed.length - 12} more are in the events.</span>}
        </span>
      </p>
      <InventoryButton siteId={site.id} targets={servers.map(([, id]) => id)} blocked={forbidden} />
    </section>
  );
}
