/** Query options for everything the pages read. Live events invalidate them by key; see `live/cursor.ts`. */
import { infiniteQueryOptions, QueryClient, queryOptions } from "@tanstack/react-query";

import type { FleetFilter, JobFilter } from "../lib/search";
import { api, body } from "./client";
import { isPassing } from "./problem";
import type { Job, Run } from "./types";

export function newQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        staleTime: 10_000,
        retry: (failures, error) => failures < 2 && isPassing(error),
        // Offline is not the same as unreachable here: loopback works without a network.
        networkMode: "always",
      },
      mutations: { networkMode: "always", retry: false },
    },
  });
}

const PAGE = 100;
/** The most targets of one job. */
export const MAX_TARGETS = 1000;

/** Everything that a list has, page by page. */
async function everyPage<T>(read: (cursor: string | undefined) => Promise<{ items: T[]; next?: string | null }>, most = Infinity): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page = await read(cursor);
    items.push(...page.items);
    cursor = page.next ?? undefined;
  } while (cursor !== undefined && items.length <= most);
  return items;
}

/** The most that one page may have. */
const FULL = 500;

export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: ({ signal }) => body(api.GET("/v1/auth/me", { signal })),
  staleTime: 60_000,
});

export const sitesQuery = queryOptions({
  queryKey: ["sites"],
  queryFn: async ({ signal }) => ({ items: await everyPage((cursor) => body(api.GET("/v1/sites", { params: { query: { cursor, limit: FULL } }, signal }))) }),
  refetchInterval: 20_000,
});

export const executorsQuery = (site: string | undefined) =>
  queryOptions({
    queryKey: ["executors", { site }],
    queryFn: async ({ signal }) => ({ items: await everyPage((cursor) => body(api.GET("/v1/executors", { params: { query: { site, cursor, limit: FULL } }, signal }))) }),
    refetchInterval: 10_000,
  });

export const credentialsQuery = (site: string | undefined) =>
  queryOptions({
    queryKey: ["credentials", { site }],
    queryFn: async ({ signal }) => ({ items: await everyPage((cursor) => body(api.GET("/v1/credentials", { params: { query: { site, cursor, limit: FULL } }, signal }))) }),
  });

/** Everyone, page by page. */
export const peopleQuery = queryOptions({
  queryKey: ["people"],
  queryFn: ({ signal }) => everyPage((cursor) => body(api.GET("/v1/users", { params: { query: { cursor, limit: FULL } }, signal }))),
});

export const serversQuery = (filter: FleetFilter) =>
  infiniteQueryOptions({
    queryKey: ["servers", filter],
    queryFn: ({ pageParam, signal }) =>
      body(api.GET("/v1/servers", { params: { query: { ...filter, cursor: pageParam, limit: PAGE } }, signal })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    placeholderData: (former) => former,
    refetchInterval: 30_000,
  });

/** Every server that matches, page by page, for a frozen selection. Never a part: throws above `MAX_TARGETS`. */
export async function allMatching(filter: FleetFilter) {
  const items = await everyPage((cursor) => body(api.GET("/v1/servers", { params: { query: { ...filter, cursor, limit: FULL } } })), MAX_TARGETS);
  if (items.length > MAX_TARGETS) throw new Error(`More than ${MAX_TARGETS} servers match; a job takes no more. Narrow the filter.`);
  return items;
}

/** Id → name of servers, of as many as one page has: for lists that only know ids. */
export const serverNames = (site: string | undefined) =>
  queryOptions({
    queryKey: ["servers", "names", { site }],
    queryFn: async ({ signal }) => {
      const { items } = await body(api.GET("/v1/servers", { params: { query: { site, limit: FULL } }, signal }));
      return new Map(items.map((server) => [server.id, server.name]));
    },
    staleTime: 60_000,
  });

/** Name → BMC address of every server of a site, as registered now. */
export const registeredQuery = (site: string) =>
  queryOptions({
    queryKey: ["servers", "registered", site],
    queryFn: async ({ signal }): Promise<ReadonlyMap<string, string>> => {
      const servers = await everyPage((cursor) => body(api.GET("/v1/servers", { params: { query: { site, cursor, limit: FULL } }, signal })));
      return new Map(servers.map((server) => [server.name, server.bmc_url ?? ""]));
    },
  });

/** Servers whose name, service tag or model has `q` in it, some of them. */
export const serversLike = (q: string, site: string | undefined) =>
  queryOptions({
    queryKey: ["servers", "like", { q, site }],
    queryFn: ({ signal }) => body(api.GET("/v1/servers", { params: { query: { q, site, limit: 20 } }, signal })),
    enabled: q !== "",
  });

export const serverQuery = (id: string) =>
  queryOptions({
    queryKey: ["server", id],
    queryFn: ({ signal }) => body(api.GET("/v1/servers/{id}", { params: { path: { id } }, signal })),
    refetchInterval: 30_000,
  });

export const jobsQuery = (filter: JobFilter) =>
  infiniteQueryOptions({
    queryKey: ["jobs", filter],
    queryFn: ({ pageParam, signal }) =>
      body(api.GET("/v1/jobs", { params: { query: { ...filter, cursor: pageParam, limit: 50 } }, signal })),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => last.next ?? undefined,
    placeholderData: (former) => former,
    refetchInterval: 30_000,
  });

export const isOver = (state: Job["state"]): boolean => state === "succeeded" || state === "failed" || state === "cancelled";

export const isRunOver = (state: Run["state"]): boolean =>
  state === "succeeded" || state === "no_change" || state === "failed" || state === "cancelled" || state === "unknown";

/** Slow polling beside the stream: percentages need not be events. */
const BUSY_POLL = 3000;

export const jobQuery = (id: string) =>
  queryOptions({
    queryKey: ["job", id],
    queryFn: ({ signal }) => body(api.GET("/v1/jobs/{id}", { params: { path: { id } }, signal })),
    refetchInterval: ({ state }) => (state.data && isOver(state.data.state) ? false : BUSY_POLL),
  });

export const jobRunsQuery = (id: string, over: boolean) =>
  queryOptions({
    queryKey: ["job", id, "runs"],
    queryFn: ({ signal }) => everyPage((cursor) => body(api.GET("/v1/jobs/{id}/runs", { params: { path: { id }, query: { cursor, limit: FULL } }, signal }))),
    refetchInterval: over ? false : BUSY_POLL,
  });

export const runQuery = (id: string, over: boolean) =>
  queryOptions({
    queryKey: ["run", id],
    queryFn: ({ signal }) => body(api.GET("/v1/runs/{id}", { params: { path: { id } }, signal })),
    refetchInterval: over ? false : 10_000,
  });
