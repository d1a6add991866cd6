/** What happened and what happens, in the fleet, in a site or on a server. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useId, useState } from "react";

import { serverNames, serverQuery, serversLike, sitesQuery } from "../api/queries";
import { EventList } from "../components/EventList";
import { CheckField } from "../components/fields";
import { Button, PageHead } from "../components/ui";
import { nameOf } from "../lib/format";
import type { EventView } from "../lib/search";

export function Events() {
  const view = useSearch({ from: "/signed-in/events" });
  const { server, site } = view;
  const navigate = useNavigate({ from: "/events" });
  const { data: sites } = useQuery(sitesQuery);
  const { data: names } = useQuery(serverNames(site));
  const change = (next: Partial<EventView>): void => void navigate({ search: (old) => ({ ...old, ...next }), replace: true });
  return (
    <>
      <PageHead title="Events" meta="The newest first, as they happen" />
      <div className="flex flex-wrap items-center gap-x-4 gap-y-2 pb-3">
        {server === undefined ? <ServerFilter site={site} choose={(id) => change({ server: id })} /> : <Chosen id={server} clear={() => change({ server: undefined })} />}
        <CheckField label="With the lines of the runs' logs" checked={view.lines === "shown"} set={(on) => change({ lines: on ? "shown" : undefined })} />
      </div>
      <div className="panel">
        <EventList
          key={`${server} ${site}`}
          filter={server !== undefined ? { server } : site !== undefined ? { site } : {}}
          lines={view.lines === "shown"}
          fleet={{ siteName: (id) => nameOf(sites?.items, id), serverName: (id) => names?.get(id) }}
        />
      </div>
    </>
  );
}

/** Takes a server by its name: whole, or as much of it as only one has. */
function ServerFilter({ site, choose }: { site: string | undefined; choose: (id: string) => void }) {
  const id = useId();
  const queries = useQueryClient();
  const [text, setText] = useState("");
  const { data } = useQuery(serversLike(text.trim(), site));
  const find = useMutation({
    mutationFn: async (name: string) => {
      const { items } = await queries.fetchQuery(serversLike(name, site));
      const match = items.find((server) => server.name === name) ?? (items.length === 1 ? items[0] : undefined);
      if (match === undefined) throw new Error(items.length === 0 ? "No server matches." : "Several servers match. Give the whole name.");
      return match.id;
    },
    onSuccess: choose,
  });
  return (
    <form
      role="search"
      className="flex flex-wrap items-center gap-x-3 gap-y-1"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== "") find.mutate(text.trim());
      }}
    >
      <input className="field w-64" type="search" list={id} aria-label="Server" placeholder="Server: any" value={text} onChange={(event) => setText(event.target.value)} />
      <datalist id={id}>
        {data?.items.map((server) => (
          <option key={server.id} value={server.name}>
            {server.site}
          </option>
        ))}
      </datalist>
      <Button type="submit" busy={find.isPending}>
        Show its events
      </Button>
      {find.error && (
        <span role="alert" className="text-bad text-xs">
          {find.error.message}
        </span>
      )}
    </form>
  );
}

function Chosen({ id, clear }: { id: string; clear: () => void }) {
  const { data, error } = useQuery(serverQuery(id));
  return (
    <span className="border-line bg-raised flex h-7 items-center gap-2 rounded border px-2">
      Server: {data?.name ?? (error ? "unknown" : "…")}
      <button type="button" className="text-soft hover:text-bad px-0.5" aria-label="Show the events of all servers" onClick={clear}>
        ×
      </button>
    </span>
  );
}
