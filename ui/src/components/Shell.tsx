/** The frame of every signed-in page: navigation, site, live state, theme, person, banners. */
import { useMutation, useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { Link, Outlet, useRouter, useRouterState } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useState } from "react";

import { api, body } from "../api/client";
import { meQuery, sitesQuery } from "../api/queries";
import type { Me } from "../api/types";
import { count } from "../lib/format";
import { fetchPagesSoon } from "../lib/pages";
import { setTheme, type Theme, theme } from "../lib/theme";
import { LiveProvider } from "../live/LiveProvider";
import { Banners, LiveBadge } from "./Banners";
import { Shortcuts } from "./Shortcuts";
import { Button } from "./ui";

// Dialogs are not part of what is needed first.
const ChangePassword = lazy(() => import("./ChangePassword").then((file) => ({ default: file.ChangePassword })));

export function Shell() {
  const { data: me } = useSuspenseQuery(meQuery);
  useEffect(fetchPagesSoon, []);
  return (
    <LiveProvider>
      <a href="#main" className="btn btn-primary absolute top-2 left-2 z-50 -translate-y-16 focus:translate-y-0">
        Skip to the page
      </a>
      <div className="grid h-full grid-cols-[200px_minmax(0,1fr)] grid-rows-[48px_minmax(0,1fr)] max-md:grid-cols-[68px_minmax(0,1fr)]">
        <Sidebar me={me} />
        <header className="border-line flex min-w-0 items-center justify-between gap-4 border-b px-6 max-md:gap-2 max-md:px-3">
          <SitePicker />
          <div className="flex items-center gap-2">
            <LiveBadge />
            <ThemePicker />
          </div>
        </header>
        <main id="main" tabIndex={-1} className="flex min-h-0 min-w-0 scroll-pt-16 flex-col overflow-y-auto outline-none">
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

/** The pages of the menu; each keeps the chosen site. */
const PLACES = [
  { to: "/servers", name: "Servers", icon: "M2 3h12v4H2zM2 9h12v4H2zM4.5 5h.01M4.5 11h.01" },
  { to: "/jobs", name: "Jobs", icon: "M2 4h7M2 8h12M2 12h9M12 2.5l2 1.5-2 1.5z" },
  { to: "/events", name: "Events", icon: "M2 8h2.5l2-5 3 10 2-5H14" },
  { to: "/sites", name: "Sites", icon: "M8 14.5S13 10 13 6.5a5 5 0 0 0-10 0C3 10 8 14.5 8 14.5zM8 8a1.6 1.6 0 1 0 0-3.2A1.6 1.6 0 0 0 8 8z" },
  { to: "/executors", name: "Executors", icon: "M8 2v5M4 14v-3l4-4 4 4v3M8 7v7" },
  { to: "/credentials", name: "Credentials", icon: "M5.5 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM8 7.5 13.5 2M11 4.5l2 2" },
  { to: "/people", name: "People", icon: "M8 8a2.6 2.6 0 1 0 0-5.2A2.6 2.6 0 0 0 8 8zM3 14c0-2.8 2.2-4.2 5-4.2s5 1.4 5 4.2" },
] as const;

function Sidebar({ me }: { me: Me }) {
  const site = useRouterState({ select: ({ location }) => (location.search as { site?: string }).site });
  const keep = site ? { site } : {};
  return (
    <nav aria-label="Main" className="border-line bg-raised row-span-2 flex flex-col overflow-y-auto border-r">
      <div className="border-line flex h-12 shrink-0 items-center gap-2.5 border-b px-4 max-md:justify-center max-md:px-0">
        <Logo />
        <span className="text-[15px] font-semibold tracking-tight max-md:hidden">Rackhand</span>
      </div>
      <ul className="flex flex-1 flex-col gap-0.5 p-2.5 max-md:px-1.5">
        {PLACES.map(({ to, name, icon }) => (
          <li key={to}>
            <Link to={to} search={keep} activeProps={ACTIVE} activeOptions={{ includeSearch: false }} className={NAV} aria-label={name}>
              <Icon path={icon} />
              <span>{name}</span>
            </Link>
          </li>
        ))}
      </ul>
      <Person me={me} />
    </nav>
  );
}

const NAV =
  "flex h-8 items-center gap-2.5 rounded-[5px] px-2.5 text-soft hover:bg-hover hover:text-ink font-medium max-md:h-11 max-md:flex-col max-md:justify-center max-md:gap-0.5 max-md:px-0 max-md:text-[10px] max-md:leading-none";
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
  // As long as the session has not ended, nobody is sent away: whoever comes next would be this person.
  const signOut = useMutation({
    mutationFn: () => body(api.POST("/v1/auth/logout", { body: {} })),
    onSuccess: async () => {
      queries.clear();
      await router.navigate({ to: "/sign-in" });
    },
  });
  return (
    <div className="border-line border-t p-3.5 max-md:p-2">
      <p className="truncate font-medium max-md:hidden" title={me.email}>
        {me.name}
      </p>
      <p className="text-soft truncate text-xs max-md:hidden">{roles.join(", ") || "no role yet"}</p>
      <div className="mt-1.5 max-md:[&_.link]:text-left max-md:[&_.link]:text-[10px] max-md:[&_.link]:leading-tight">
        <Suspense>
          <ChangePassword look="link" />
        </Suspense>
      </div>
      <Button look="link" className="mt-1.5" busy={signOut.isPending} onClick={() => signOut.mutate()}>
        Sign out
      </Button>
      {signOut.isError && (
        <p role="alert" className="text-bad mt-1 text-xs">
          You are still signed in: {signOut.error.message}
        </p>
      )}
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
    const here = PLACES.find(({ to }) => to === location.pathname)?.to ?? "/servers";
    void router.navigate({ to: here, search: (old: object) => ({ ...(here === location.pathname ? old : {}), site: id || undefined }) } as never);
  };
  return (
    <div className="flex min-w-0 items-center gap-3">
      <label className="flex items-center gap-2">
        <span className="eyebrow max-md:sr-only">Site</span>
        <select className="field min-w-36 max-md:w-28 max-md:min-w-0" value={chosen ? site : ""} onChange={(event) => choose(event.target.value)}>
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
        className="field max-md:w-32"
        value={choice}
        onChange={(event) => {
          const next = event.target.value as Theme;
          setTheme(next);
          setChoice(next);
        }}
      >
        <option value="system">Theme: system</option>
        <option value="light">Theme: light</option>
        <option value="dark">Theme: dark</option>
      </select>
    </label>
  );
}
