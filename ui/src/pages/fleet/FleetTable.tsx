/** The virtualised table of servers. Only visible rows are in the document; the count is announced. */
import { Link } from "@tanstack/react-router";
import { createColumnHelper, tableFeatures, useTable } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type CSSProperties, useEffect, useMemo, useRef, useSyncExternalStore } from "react";

import type { LastFailure, ServerSummary } from "../../api/types";
import { HealthStatus, PowerStatus, Shape } from "../../components/Status";
import { Age, None } from "../../components/ui";
import { generation, number, STALE_MS } from "../../lib/format";
import type { FleetFilter } from "../../lib/search";

/** Pixels that a row takes before it has been measured. */
const ROW: Record<Layout, number> = { wide: 36, folded: 52, narrow: 92 };

const features = tableFeatures({});
const helper = createColumnHelper<typeof features, ServerSummary>();

/** Which columns a screen has room for; what has no column of its own then stands below the name. */
type Layout = "wide" | "folded" | "narrow";
const COLUMNS: Record<Layout, Record<string, string>> = {
  wide: {
    name: "auto",
    power: "92px",
    health: "100px",
    seen_at: "136px",
    model: "148px",
    generation: "84px",
    service_tag: "112px",
    bios_version: "92px",
    bmc_version: "112px",
    tags: "120px",
  },
  folded: { name: "auto", power: "92px", health: "108px", seen_at: "136px", generation: "92px", bios_version: "92px", bmc_version: "112px", tags: "128px" },
  narrow: { name: "auto", power: "112px" },
};
const SELECT = "40px";

interface Props {
  rows: ServerSummary[];
  total: number;
  selected: ReadonlyMap<string, unknown>;
  dim: boolean;
  change: (change: Partial<FleetFilter>) => void;
  select: (next: ReadonlyMap<string, ServerSummary>) => void;
  /** Reads on; absent when everything is here. */
  more?: () => void;
}

export function FleetTable({ rows, total, selected, dim, change, select, more }: Props) {
  const anchor = useRef<number | undefined>(undefined);
  const toggle = (index: number, range: boolean): void => {
    const row = rows[index];
    if (row === undefined) return;
    const next = new Map(selected as ReadonlyMap<string, ServerSummary>);
    const on = !next.has(row.id);
    const from = range && anchor.current !== undefined ? anchor.current : index;
    for (const item of rows.slice(Math.min(from, index), Math.max(from, index) + 1)) {
      if (on) next.set(item.id, item);
      else next.delete(item.id);
    }
    anchor.current = index;
    select(next);
  };

  const layout = useLayout();
  const columns = useMemo(
    () =>
      helper.columns([
        helper.accessor("name", {
          header: "Name",
          cell: ({ row: { original } }) => (
            <>
              <span className="flex flex-wrap items-center gap-x-2">
                <Link to="/servers/$id" params={{ id: original.id }} className="font-medium hover:underline">
                  {original.name}
                </Link>
                {original.active_job && (
                  <Link
                    to="/jobs/$id"
                    params={{ id: original.active_job }}
                    className="bg-info-wash text-info inline-flex shrink-0 items-center gap-1 rounded px-1.5 text-[11px] font-medium hover:underline"
                  >
                    <Shape tone="busy" size={11} />
                    job
                  </Link>
                )}
              </span>
              {original.last_failure && <Failure last={original.last_failure} />}
              {layout !== "wide" && <Below server={original} layout={layout} change={change} />}
            </>
          ),
        }),
        helper.accessor("power", {
          header: layout === "narrow" ? "State" : "Power",
          cell: ({ row: { original } }) =>
            layout === "narrow" ? (
              <span className="flex flex-col items-start">
                <span>
                  <span className="sr-only">Power </span>
                  <PowerStatus state={original.power} />
                </span>
                <span>
                  <span className="sr-only">Health </span>
                  <HealthStatus state={original.health} />
                </span>
                <span className="text-xs">
                  <span className="sr-only">Last seen </span>
                  <Age at={original.seen_at} staleMs={STALE_MS} />
                </span>
              </span>
            ) : (
              <PowerStatus state={original.power} />
            ),
        }),
        helper.accessor("health", { header: "Health", cell: ({ getValue }) => <HealthStatus state={getValue()} /> }),
        // Beside the states: none is shown without its age.
        helper.accessor("seen_at", { header: "Last seen", cell: ({ getValue }) => <Age at={getValue()} staleMs={STALE_MS} /> }),
        helper.accessor("model", {
          header: "Model",
          cell: ({ getValue }) => <Facet value={getValue()} label="model" set={(model) => change({ model })} />,
        }),
        helper.accessor("generation", {
          header: "BMC",
          cell: ({ getValue }) => {
            const value = getValue();
            return value ? generation(value) : <None />;
          },
        }),
        helper.accessor("service_tag", { header: "Service tag", cell: ({ getValue }) => <Mono value={getValue()} /> }),
        helper.accessor("bios_version", { header: "BIOS", cell: ({ getValue }) => <Mono value={getValue()} /> }),
        helper.accessor("bmc_version", { header: "BMC fw", cell: ({ getValue }) => <Mono value={getValue()} /> }),
        helper.accessor("tags", {
          header: "Tags",
          cell: ({ getValue }) => <Tags tags={getValue()} change={change} />,
        }),
      ]),
    [change, layout],
  );

  const shown = useMemo(() => columns.filter((column) => "accessorKey" in column && String(column.accessorKey) in COLUMNS[layout]), [layout, columns]);
  const table = useTable({ features, columns: shown, data: rows, getRowId: (row) => row.id });
  const model = table.getRowModel().rows;
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: model.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW[layout],
    overscan: 12,
  });
  useEffect(() => virtual.measure(), [virtual, layout]);
  const items = virtual.getVirtualItems();
  const first = items[0];
  const last = items.at(-1);
  useEffect(() => {
    if (more && last && last.index >= model.length - 20) more();
  }, [more, last, model.length]);

  const loaded = rows.filter((row) => selected.has(row.id)).length;
  const toggleAll = (): void => {
    const next = new Map(selected as ReadonlyMap<string, ServerSummary>);
    for (const row of rows) {
      if (loaded === rows.length) next.delete(row.id);
      else next.set(row.id, row);
    }
    select(next);
  };

  return (
    <div
      ref={scroller}
      // Not higher than its rows: room below them would look like a row that was not read.
      className={`panel min-h-[min(10rem,var(--rows))] overflow-auto max-md:min-h-[min(60vh,var(--rows))] ${dim ? "opacity-60" : ""}`}
      style={{ "--rows": `${virtual.getTotalSize()}px` } as CSSProperties}
      tabIndex={0}
      role="region"
      aria-label="Server list, scrollable"
    >
      <table className="grid-table table-fixed" aria-rowcount={total + 1}>
        <caption className="sr-only">Servers</caption>
        <colgroup>
          <col style={{ width: SELECT }} />
          {table.getAllLeafColumns().map((column) => (
            <col key={column.id} style={{ width: COLUMNS[layout][column.id] }} />
          ))}
        </colgroup>
        <thead className="sticky top-0 z-10">
          {table.getHeaderGroups().map((group) => (
            <tr key={group.id} aria-rowindex={1}>
              <th scope="col">
                <input
                  type="checkbox"
                  className="accent-accent block size-3.5"
                  aria-label={`Select the ${number(rows.length)} rows read so far`}
                  checked={loaded === rows.length}
                  ref={(box) => {
                    if (box) box.indeterminate = loaded > 0 && loaded < rows.length;
                  }}
                  onChange={toggleAll}
                />
              </th>
              {group.headers.map((header) => (
                <th key={header.id} scope="col">
                  <table.FlexRender header={header} />
                </th>
              ))}
            </tr>
          ))}
        </thead>
        <tbody>
          {first && first.start > 0 && (
            <tr aria-hidden="true">
              <td colSpan={11} style={{ height: first.start, padding: 0, border: 0 }} />
            </tr>
          )}
          {items.map((item) => {
            const row = model[item.index];
            if (row === undefined) return null;
            const on = selected.has(row.id);
            return (
              <tr key={row.id} ref={virtual.measureElement} data-index={item.index} data-row aria-rowindex={item.index + 2} className={on ? "bg-accent-wash/60" : ""}>
                <td>
                  <input
                    type="checkbox"
                    className="accent-accent block size-3.5"
                    aria-label={`Select ${row.original.name}`}
                    checked={on}
                    onChange={(event) => toggle(item.index, (event.nativeEvent as MouseEvent).shiftKey === true)}
                  />
                </td>
                {row.getAllCells().map((cell) => (
                  <td key={cell.id} className="py-1! whitespace-normal! wrap-anywhere">
                    <table.FlexRender cell={cell} />
                  </td>
                ))}
              </tr>
            );
          })}
          {last && virtual.getTotalSize() - last.end > 0 && (
            <tr aria-hidden="true">
              <td colSpan={11} style={{ height: virtual.getTotalSize() - last.end, padding: 0, border: 0 }} />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  );
}

const AT_MOST: [Layout, string][] = [
  // Below it, the columns of the folded table leave too little for the names.
  ["narrow", "(max-width: 1199px)"],
  ["folded", "(max-width: 1399px)"],
];

function useLayout(): Layout {
  return useSyncExternalStore(
    (listener) => {
      const queries = AT_MOST.map(([, query]) => matchMedia(query));
      for (const query of queries) query.addEventListener("change", listener);
      return () => {
        for (const query of queries) query.removeEventListener("change", listener);
      };
    },
    () => AT_MOST.find(([, query]) => matchMedia(query).matches)?.[0] ?? "wide",
  );
}

type Change = Props["change"];

/** Why the latest run on the server did not end well; its page says more. */
function Failure({ last }: { last: LastFailure }) {
  return (
    <Link
      to="/jobs/$id"
      params={{ id: last.job_id }}
      search={{ run: last.run_id }}
      title={last.detail}
      className="text-bad flex items-start gap-x-1.5 text-xs font-normal hover:underline"
    >
      <span className="pt-[3px]">
        <Shape tone="bad" size={11} />
      </span>
      <span>
        <span className="sr-only">Last failure: </span>
        {last.code}{" "}
        <span className="whitespace-nowrap">
          <Age at={last.at} />
        </span>
      </span>
    </Link>
  );
}

/** What has no column of its own. */
function Below({ server, layout, change }: { server: ServerSummary; layout: Layout; change: Change }) {
  const versions = [
    ["BIOS", server.bios_version],
    [server.generation ? generation(server.generation) : "BMC", server.bmc_version],
  ].flatMap(([name, version]) => (version ? [`${name} ${version}`] : []));
  return (
    <span className="text-soft flex flex-col text-xs">
      <span className="flex flex-wrap gap-x-2">
        {server.model && <Facet value={server.model} label="model" set={(model) => change({ model })} />}
        {server.service_tag && <Mono value={server.service_tag} />}
      </span>
      {layout === "narrow" && versions.length > 0 && <span>{versions.join(" · ")}</span>}
      {layout === "narrow" && server.tags.length > 0 && <Tags tags={server.tags} change={change} />}
    </span>
  );
}

function Tags({ tags, change }: { tags: string[]; change: Change }) {
  return (
    <span className="flex flex-wrap gap-1 py-0.5">
      {tags.map((tag) => (
        <button
          key={tag}
          type="button"
          tabIndex={-1}
          onClick={() => change({ tag })}
          aria-label={`Only with tag ${tag}`}
          className="bg-sunk border-line text-soft hover:text-accent rounded border px-1.5 text-left text-[11px] leading-[18px]"
        >
          {tag}
        </button>
      ))}
    </span>
  );
}

function Mono({ value }: { value: string | null | undefined }) {
  return value ? <span className="mono">{value}</span> : <None />;
}

/** A shortcut for the mouse; the keyboard has the filters above, and no row has more than its own stops. */
function Facet({ value, label, set }: { value: string | null | undefined; label: string; set: (value: string) => void }) {
  if (!value) return <None />;
  return (
    <button type="button" tabIndex={-1} className="hover:text-accent max-w-full text-left hover:underline" aria-label={`Only ${label} ${value}`} onClick={() => set(value)}>
      {value}
    </button>
  );
}
