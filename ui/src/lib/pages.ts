/**
 * The pages, each a file of its own. What is not needed first is fetched once the first page stands, so that moving
 * on needs no download, also while the control plane is away.
 */
import { api, body } from "../api/client";

export const PAGES = {
  signIn: () => import("../pages/SignIn"),
  choosePassword: () => import("../pages/ChoosePassword"),
  fleet: () => import("../pages/Fleet"),
  server: () => import("../pages/Server"),
  addServers: () => import("../pages/AddServers"),
  jobs: () => import("../pages/Jobs"),
  newFirmwareJob: () => import("../pages/NewFirmwareJob"),
  job: () => import("../pages/Job"),
  events: () => import("../pages/Events"),
  sites: () => import("../pages/Sites"),
  credentials: () => import("../pages/Credentials"),
  executors: () => import("../pages/Executors"),
  people: () => import("../pages/People"),
};

/**
 * A page whose file does not come because the control plane does not answer fails with that, and the app stays. For any
 * other failure, such as files that a newer version has replaced, the router reloads the document once.
 */
export function reachable<T>(load: () => Promise<T>): () => Promise<T> {
  return () =>
    load().catch(async (failure: unknown) => {
      await body(api.GET("/v1/health"));
      throw failure;
    });
}

const AFTER_MS = 1500;

/** Fetches the other pages a moment later; gives what cancels it. */
export function fetchPagesSoon(): () => void {
  const timer = setTimeout(() => {
    // A page that cannot be fetched now is fetched when someone goes there.
    for (const load of Object.values(PAGES)) load().catch(() => undefined);
  }, AFTER_MS);
  return () => clearTimeout(timer);
}
