/** The fleet: every server that matches the filter in the URL. */
import { keepPreviousData, useInfiniteQuery, useQuery, useSuspenseQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useCallback, useMemo, useState } from "react";

import { allMatching, MAX_TARGETS, meQuery, serversQuery, sitesQuery } from "../api/queries";
import type { ServerSummary } from "../api/types";
import { BootDialog } from "../components/BootDialog";
import { InventoryButton } from "../components/InventoryButton";
import { PowerDialog } from "../components/PowerDialog";
import { Button, Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { saveDraft } from "../lib/draft";
import { count, number } from "../lib/format";
import { missingRole, missingRoleAnywhere } from "../lib/roles";
import type { FleetFilter } from "../lib/search";
import { FleetFilters } from "./fleet/Filters";
import { FleetTable } from "./fleet/FleetTable";

type Picked = Pick<ServerSummary, "id" | "name" | "site_id" | "site" | "model" | "generation">;

export function Fleet() {
  const filter = useSearch({ from: "/signed-in/servers" });
  const navigate = useNavigate({ from: "/servers" });
  const list = useInfiniteQuery({ ...serversQuery(filter), placeholderData: keepPreviousData });
  const [selection, setSelection] = useState<ReadonlyMap<string, Picked>>(new Map());

  const rows = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  const counts = list.data?.pages.at(-1)?.counts;
  const filtered = Object.keys(filter).some((key) => key !== "site");
  // One function for good: the table's cells are made from it, and new ones would lose the focus.
  const setFilter = useCallback(
    (change: Partial<FleetFilter>): void => void navigate({ search: (old) => ({ ...old, ...change }), replace: true, resetScroll: false }),
    [navigate],
  );

  return (
    <>
      <PageHead
        title="Servers"
        meta={
          <span>
            {counts ? (filtered ? `${number(counts.total)} match` : count(counts.total, "server")) : "\u00a0"}
            {list.isFetching && list.data && !list.isFetchingNextPage && <span className="text-faint"> · reading</span>}
          </span>
        }
        actions={<AddLink site={filter.site} />}
      />
      <FleetFilters filter={filter} counts={counts} change={setFilter} />
      <SelectionBar filter={filter} rows={rows} total={counts?.total ?? 0} selection={selection} select={setSelection} />
      {list.error && (
        <div className="pb-3">
          <ProblemNote error={list.error} what={list.data ? "The list is out of date" : "The servers cannot be read"} retry={() => void list.refetch()} />
        </div>
      )}
      {list.isPending && <Loading what="the servers" />}
      {list.data && rows.length === 0 && (
        <div className="panel">
          {filtered ? (
            <Empty title="No server matches this filter">
              <Button onClick={() => void navigate({ search: filter.site ? { site: filter.site } : {} })}>Clear the filter</Button>
            </Empty>
          ) : (
            <Empty title="No servers yet">
              <Link to="/servers/add" search={filter.site ? { site: filter.site } : {}} className="link">
                Add servers
              </Link>
              , then select them and choose “Read inventory”.
            </Empty>
          )}
        </div>
      )}
      {rows.length > 0 && (
        <FleetTable
          rows={rows}
          total={counts?.total ?? rows.length}
          selected={selection}
          dim={list.isPlaceholderData}
          change={setFilter}
          select={setSelection}
          more={list.hasNextPage ? () => void (list.isFetchingNextPage || list.fetchNextPage()) : undefined}
        />
      )}
    </>
  );
}

function AddLink({ site }: { site: string | undefined }) {
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const blocked = missingRoleAnywhere(me, "operator", sites?.items, site);
  if (blocked !== undefined) return <Button blocked={blocked}>Add servers</Button>;
  return (
    <Link to="/servers/add" search={site ? { site } : {}} className="btn">
      Add servers
    </Link>
  );
}

interface SelectionBarProps {
  filter: FleetFilter;
  rows: ServerSummary[];
  total: number;
  selection: ReadonlyMap<string, Picked>;
  select: (next: ReadonlyMap<string, Picked>) => void;
}

/** Says what the selection covers and offers what can be done with it. */
function SelectionBar({ filter, rows, total, selection, select }: SelectionBarProps) {
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const navigate = useNavigate();
  const [gathering, setGathering] = useState(false);
  const [error, setError] = useState<unknown>();

  const picked = [...selection.values()];
  const shown = rows.filter((row) => selection.has(row.id)).length;
  const elsewhere = picked.length - shown;
  const siteIds = [...new Set(picked.map((item) => item.site_id))];
  const first = picked[0];

  const all = async (): Promise<void> => {
    setGathering(true);
    setError(undefined);
    try {
      const items = await allMatching(filter);
      select(new Map(items.map((item) => [item.id, item])));
    } catch (failure) {
      setError(failure);
    } finally {
      setGathering(false);
    }
  };

  const powerless = missingRoleAnywhere(me, "operator", sites?.items, filter.site);
  let blocked: string | undefined;
  if (powerless !== undefined) blocked = powerless;
  else if (first === undefined) blocked = "Select servers first.";
  else if (siteIds.length > 1) blocked = `A job works in one site; these are in ${siteIds.length}. Choose a site first.`;
  else if (picked.length > MAX_TARGETS) blocked = `A job takes at most ${MAX_TARGETS} servers.`;
  else blocked = missingRole(me, "operator", first.site_id, first.site);

  const update = (): void => {
    if (first === undefined) return;
    const draft = saveDraft({
      siteId: first.site_id,
      site: sites?.items.find((site) => site.id === first.site_id)?.name ?? first.site,
      targets: picked.map(({ id, name, model, generation }) => ({ id, name, model, generation })),
      origin: describe(filter),
    });
    void navigate({ to: "/jobs/new", search: { draft } });
  };

  return (
    <div className="flex min-h-11 shrink-0 flex-wrap items-center justify-between gap-x-4 gap-y-2 pb-2" role="region" aria-label="Selection">
      <p role="status" className="text-soft flex flex-wrap items-center gap-x-3">
        {picked.length === 0 ? (
          <span>Nothing selected</span>
        ) : (
          <>
            <span className="text-ink font-medium">
              {number(picked.length)} selected
              {picked.length === total && elsewhere === Math.max(0, total - rows.length) && total > 0 ? `: all ${number(total)} matching` : ""}
            </span>
            {elsewhere > 0 && <span>{number(elsewhere)} of them not in the rows read so far or outside this filter</span>}
            <button type="button" className="link" onClick={() => select(new Map())}>
              Clear selection
            </button>
          </>
        )}
        {total > MAX_TARGETS && <span>Narrow the filter to at most {number(MAX_TARGETS)} to select all that match</span>}
        {total > 0 && total <= MAX_TARGETS && picked.length < total && (
          <button type="button" className="link" onClick={() => void all()} aria-busy={gathering}>
            {gathering ? "Collecting…" : `Select all ${number(total)} matching`}
          </button>
        )}
      </p>
      <div className="flex flex-wrap items-center gap-2">
        <InventoryButton siteId={first?.site_id ?? ""} targets={picked.map((item) => item.id)} blocked={blocked} />
        <PowerDialog siteId={first?.site_id ?? ""} servers={picked} blocked={blocked} />
        <BootDialog siteId={first?.site_id ?? ""} servers={picked} blocked={blocked} />
        <Button look="primary" blocked={blocked} explain={picked.length > 0 || powerless !== undefined} onClick={update}>
          Update firmware{picked.length > 0 ? ` on ${count(picked.length, "server")}` : ""}
        </Button>
      </div>
      {error !== undefined && <ProblemNote error={error} what="The selection could not be collected" retry={() => void all()} />}
    </div>
  );
}

function describe({ site: _, ...filter }: FleetFilter): string {
  const parts = Object.entries(filter).map(([key, value]) => (key === "q" ? `“${value}”` : `${key} ${value}`));
  return parts.length === 0 ? "picked from all servers" : `picked from the servers with ${parts.join(", ")}`;
}
