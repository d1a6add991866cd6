/** Words about people: where a role holds, and what follows when something is changed for one of them. */
import type { Grant, PasswordLink, Role } from "../api/types";
import { count, nameOf } from "./format";

/** "the whole fleet", or the name of the site. */
export function placeOf(site: string | null | undefined, sites: readonly { id: string; name: string }[] | undefined): string {
  return site ? nameOf(sites, site) : "the whole fleet";
}

/** What follows when a role is removed; `self`: from oneself. */
export function removalNote(name: string, grant: Pick<Grant, "role" | "site_id">, place: string, last: boolean, self: boolean): string {
  const others = grant.site_id ? `Only an admin of ${place} can give it back.` : "Only another admin of the fleet can give it back.";
  return [
    ...(self
      ? [`This is your own role. From the next request on, you are no longer ${grant.role} of ${place}${last ? " and have no role left: you see nothing and change nothing" : ""}.`, others]
      : [`From the next request on, ${name} is no longer ${grant.role} of ${place}${last ? " and has no role left" : ""}.`]),
    "Jobs that are planned or running continue.",
    ...(grant.role === "admin" ? ["Enrolment tokens and password links that this role was required for stop working."] : []),
  ].join(" ");
}

/** What a role allows. */
export const MAY: Record<Role, string> = {
  viewer: "reads everything there",
  operator: "also plans, approves and runs jobs, adds servers and sets credentials",
  admin: "also changes settings, executors and roles",
};

/** The whole link; the page stands at this control plane where it does not know its own address. */
export function passwordLink(made: Pick<PasswordLink, "link" | "token">, origin: string): string {
  return made.link ?? `${origin}/choose-password#${made.token}`;
}

/** How long a link works. */
export function linkHours(seconds: number): string {
  return count(Math.floor(seconds / 3600), "hour");
}
