/**
 * Routes. Everything but the shell is loaded lazily; filters are typed search parameters; a page that
 * needs a session sends people to sign-in and back to where they wanted to go.
 */
import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent, Outlet, redirect } from "@tanstack/react-router";

import { whenSignedOut } from "./api/client";
import { ApiError } from "./api/problem";
import { meQuery, sitesQuery } from "./api/queries";
import { Shell } from "./components/Shell";
import { CannotStart, NotFound, PageError } from "./components/errors";
import { Loading } from "./components/ui";
import { PAGES, reachable } from "./lib/pages";
import { eventView, fleetFilter, jobFilter, jobView, parseSearch, signInTarget, siteOnly, stringifySearch } from "./lib/search";

const root = createRootRouteWithContext<{ queries: QueryClient }>()({ component: Outlet, notFoundComponent: NotFound });

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  validateSearch: signInTarget,
  component: lazyRouteComponent(reachable(PAGES.signIn), "SignIn"),
});

const choosePassword = createRoute({
  getParentRoute: () => root,
  path: "/choose-password",
  component: lazyRouteComponent(reachable(PAGES.choosePassword), "ChoosePassword"),
});

const signedIn = createRoute({
  getParentRoute: () => root,
  id: "signed-in",
  beforeLoad: async ({ context, location }) => {
    try {
      await context.queries.ensureQueryData(meQuery);
    } catch (error) {
      if (error instanceof ApiError && error.problem.status === 401) {
        throw redirect({ to: "/sign-in", search: { to: location.href } });
      }
      throw error;
    }
    void context.queries.prefetchQuery(sitesQuery);
  },
  component: Shell,
  errorComponent: CannotStart,
});

const home = createRoute({
  getParentRoute: () => signedIn,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/servers" });
  },
});

const servers = createRoute({
  getParentRoute: () => signedIn,
  path: "/servers",
  validateSearch: fleetFilter,
  component: lazyRouteComponent(reachable(PAGES.fleet), "Fleet"),
});

const addServers = createRoute({
  getParentRoute: () => signedIn,
  path: "/servers/add",
  validateSearch: siteOnly,
  component: lazyRouteComponent(reachable(PAGES.addServers), "AddServers"),
});

const server = createRoute({
  getParentRoute: () => signedIn,
  path: "/servers/$id",
  component: lazyRouteComponent(reachable(PAGES.server), "ServerPage"),
});

const jobs = createRoute({
  getParentRoute: () => signedIn,
  path: "/jobs",
  validateSearch: jobFilter,
  component: lazyRouteComponent(reachable(PAGES.jobs), "Jobs"),
});

const newJob = createRoute({
  getParentRoute: () => signedIn,
  path: "/jobs/new",
  validateSearch: (raw: Record<string, unknown>): { draft?: string } => (typeof raw.draft === "string" ? { draft: raw.draft } : {}),
  component: lazyRouteComponent(reachable(PAGES.newFirmwareJob), "NewFirmwareJob"),
});

const job = createRoute({
  getParentRoute: () => signedIn,
  path: "/jobs/$id",
  validateSearch: jobView,
  component: lazyRouteComponent(reachable(PAGES.job), "JobPage"),
});

const executors = createRoute({
  getParentRoute: () => signedIn,
  path: "/executors",
  validateSearch: siteOnly,
  component: lazyRouteComponent(reachable(PAGES.executors), "Executors"),
});

const events = createRoute({
  getParentRoute: () => signedIn,
  path: "/events",
  validateSearch: eventView,
  component: lazyRouteComponent(reachable(PAGES.events), "Events"),
});

const sites = createRoute({
  getParentRoute: () => signedIn,
  path: "/sites",
  validateSearch: siteOnly,
  component: lazyRouteComponent(reachable(PAGES.sites), "Sites"),
});

const credentials = createRoute({
  getParentRoute: () => signedIn,
  path: "/credentials",
  validateSearch: siteOnly,
  component: lazyRouteComponent(reachable(PAGES.credentials), "Credentials"),
});

const people = createRoute({
  getParentRoute: () => signedIn,
  path: "/people",
  validateSearch: siteOnly,
  component: lazyRouteComponent(reachable(PAGES.people), "People"),
});

const pages = [home, servers, addServers, server, jobs, newJob, job, events, sites, executors, credentials, people];
const tree = root.addChildren([signIn, choosePassword, signedIn.addChildren(pages)]);

export function newRouter(queries: QueryClient) {
  const router = createRouter({
    routeTree: tree,
    context: { queries },
    parseSearch,
    stringifySearch,
    defaultPreload: "intent",
    defaultPendingComponent: () => <Loading what="the page" />,
    defaultErrorComponent: PageError,
    defaultNotFoundComponent: NotFound,
    scrollRestoration: true,
    scrollToTopSelectors: ["#main"],
  });
  whenSignedOut(() => {
    const { pathname, href } = router.state.location;
    if (pathname === "/sign-in" || pathname === "/choose-password") return;
    void router.navigate({ to: "/sign-in", search: { to: href } }).then(() => queries.removeQueries({ queryKey: meQuery.queryKey }));
  });
  return router;
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof newRouter>;
  }
}
