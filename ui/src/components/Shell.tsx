/** The frame of every signed-in page: navigation, site, live state, theme, person, banners. */
import { useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, Outlet, useRouter, useRouterState } from "@tanstack/react-router";
import { useEffect, useState } from "react";

import { api } from "../api/client";
import { meQuery, sitesQuery } from "../api/queries";
import type { Me } from "../api/types";
import { count } from "../lib/format";
import { fetchPagesSoon } from "../lib/pages";
import { setTheme, type Theme, theme } from "../lib/theme";
import { LiveProvider } from "../live/LiveProvider";
import { Banners, LiveBadge } from "./Banners";
import { Shortcuts } from "./Shortcuts";

export function Shell() {
  const { data: me } = useSuspenseQuery(meQuery);
  useEffect(fetchPagesSoon, []);
  return (
    <LiveProvider>
      <a href="#main" className="btn btn-primary absolute top-2 left-2 z-50 -translate-y-16 focus:translate-y-0">
        Skip to the page
      </a>
      <div className="grid h-full grid-cols-[200px_minmax(0,1fr)] grid-rows-[48px_minmax(0,1fr)] max-md:grid-cols-[56px_minmax(0,1fr)]">
        <Sidebar me={me} />
        <header className="border-line flex min-w-0 items-center justify-between gap-4 border-b px-6 max-md:px-3">
          <SitePicker />
          <div className="flex items-center gap-2">
            <LiveBadge />
            <ThemePicker />
          </div>
        </header>
        <main id="main" tabIndex={-1} className="flex min-h-0 min-w-0 flex-col overflow-y-auto outline-none">
          <Banners />
          <div className="flex min-h-0 flex-1 flex-col px-6 pt-5 pb-6 max-md:px-3">
            <Outlet />
          </div>
        </main>
      </div>
    </LiveProvider>
  );
}

function Logo() {
  return (
    <svg width="22" height="22" viewBox="0 0 22 22" fill="none" aria-hidden="true" className="text-accent shrink-0">
      <rect x="2" y="3" width="18" height="7" rx="1.6" stroke="currentColor" strokeWidth="1.6" />
      <rect x="2" y="12" width="18" height="7" rx="1.6" stroke="currentColor" strokeWidth="1.6" />
      <circle cx="6" cy="6.5" r="1.2" fill="currentColor" />
      <circle cx="6" cy="15.5" r="1.2" fill="currentColor" />
      <path d="M11 6.5h6M11 15.5h6" stroke="currentColor" strokeWidth="1.6" />
    </svg>
  );
}

const ICON = {
  servers: "M2 3h12v4H2zM2 9h12v4H2zM4.5 5h.01M4.5 11h.01",
  jobs: "M2 4h7M2 8h12M2 12h9M12 2.5l2 1.5-2 1.5z",
  executors: "M8 2v5M4 14v-3l4-4 4 4v3M8 7v7",
};

function Sidebar({ me }: { me: Me }) {
  const site = useRouterState({ select: ({ location }) => (location.search as { site?: string }).site });
  const keep = site ? { site } : {};
  return (
    <nav aria-label="Main" className="border-line bg-raised row-span-2 flex flex-col overflow-y-auto border-r">
      <div className="border-line flex h-12 shrink-0 items-center gap-2.5 border-b px-4 max-md:px-3.5">
        <Logo />
        <span className="text-[15px] font-semibold tracking-tight max-md:hidden">Rackhand</span>
      </div>
      <ul className="flex flex-1 flex-col gap-0.5 p-2.5 max-md:px-2">
        <li>
          <Link to="/servers" search={keep} activeProps={ACTIVE} activeOptions={{ includeSearch: false }} className={NAV} aria-label="Servers">
            <Icon path={ICON.servers} />
            <span className="max-md:hidden">Servers</span>
          </Link>
        </li>
        <li>
          <Link to="/jobs" search={keep} activeProps={ACTIVE} activeOptions={{ includeSearch: false }} className={NAV} aria-label="Jobs">
            <Icon path={ICON.jobs} />
            <span className="max-md:hidden">Jobs</span>
          </Link>
        </li>
        <li>
          <Link to="/executors" search={keep} activeProps={ACTIVE} activeOptions={{ includeSearch: false }} className={NAV} aria-label="Executors">
            <Icon path={ICON.executors} />
            <span className="max-md:hidden">Executors</span>
          </Link>
        </li>
      </ul>
      <Person me={me} />
    </nav>
  );
}

const NAV = "flex h-8 items-center gap-2.5 rounded-[5px] px-2.5 text-soft hover:bg-hover hover:text-ink font-medium";
const ACTIVE = { className: "!bg-accent-wash !text-accent", "aria-current": "page" as const };

function Icon({ path }: { path: string }) {
  return (
    <svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.4" strokeLinejoin="round" strokeLinecap="round" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

function Person({ me }: { me: Me }) {
  const router = useRouter();
  const queries = useQueryClient();
  const roles = [...new Set(me.grants.map((grant) => (grant.site_id ? `${grant.role} (site)` : grant.role)))];
  const signOut = async (): Promise<void> => {
    await api.POST("/v1/auth/logout").catch(() => undefined);
    queries.clear();
    await router.navigate({ to: "/sign-in" });
  };
  return (
    <div className="border-line border-t p-3.5 max-md:p-2">
      <p className="truncate font-medium max-md:hidden" title={me.email}>
        {me.name}
      </p>
      <p className="text-soft truncate text-xs max-md:hidden">{roles.join(", ") || "no role yet"}</p>
      <button type="button" className="link text-soft mt-1.5 text-xs" onClick={() => void signOut()}>
        Sign out
      </button>
      <Shortcuts />
    </div>
  );
}

function SitePicker() {
  const { data, error } = useQuery(sitesQuery);
  const router = useRouter();
  const location = useRouterState({ select: (state) => state.location });
  const site = (location.search as { site?: string }).site ?? "";
  const sites = data?.items ?? [];
  const chosen = sites.find((item) => item.id === site);
  const online = sites.reduce((sum, item) => sum + item.executors_online, 0);
  const servers = sites.reduce((sum, item) => sum + item.servers, 0);
  const choose = (id: string): void => {
    const here = ["/servers", "/jobs", "/executors"].find((path) => path === location.pathname) ?? "/servers";
    void router.navigate({ to: here, search: (old: object) => ({ ...(here === location.pathname ? old : {}), site: id || undefined }) } as never);
  };
  return (
    <div className="flex min-w-0 items-center gap-3">
      <label className="flex items-center gap-2">
        <span className="eyebrow">Site</span>
        <select className="field min-w-36" value={chosen ? site : ""} onChange={(event) => choose(event.target.value)}>
          <option value="">All sites</option>
          {sites.map((item) => (
            <option key={item.id} value={item.id}>
              {item.name}
            </option>
          ))}
        </select>
      </label>
      <span className="text-soft truncate text-xs max-lg:hidden">
        {error && !data
          ? "Sites cannot be read"
          : data && (
              <>
                {count(chosen?.servers ?? servers, "server")} · {count(chosen?.executors_online ?? online, "executor")} online
              </>
            )}
      </span>
    </div>
  );
}

function ThemePicker() {
  const [choice, setChoice] = useState<Theme>(theme);
  return (
    <label>
      <span className="sr-only">Theme</span>
      <select
        className="field"
        value={choice}
        onChange={(event) => {
          const next = event.target.value as Theme;
          setTheme(next);
          setChoice(next);
        }}
      >
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}
