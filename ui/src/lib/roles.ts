/** Which role a person holds where, and the words for what is missing. */
import type { Me, Role, Site } from "../api/types";

/** From the one that may least. */
export const ROLES: Role[] = ["viewer", "operator", "admin"];

/** Whether `me` holds at least `role` in `site` (by a grant there or for the whole fleet). */
export function holds(me: Me, role: Role, site: string): boolean {
  return me.grants.some(
    (grant) =>
      ROLES.indexOf(grant.role) >= ROLES.indexOf(role) && (grant.site_id === null || grant.site_id === undefined || grant.site_id === site),
  );
}

/** Whether `me` is an admin of the whole fleet. */
export function leadsFleet(me: Me): boolean {
  return me.grants.some((grant) => grant.role === "admin" && (grant.site_id === null || grant.site_id === undefined));
}

/** Why `me` may not, or undefined. */
export function missingRole(me: Me, role: Role, site: string, siteName: string): string | undefined {
  return holds(me, role, site) ? undefined : `Requires the role ${role} in ${siteName}; ask an admin of the site.`;
}

/** The same where the site is not chosen yet: why `me` may not in any of `sites`, or not in the one that is `chosen`. */
export function missingRoleAnywhere(me: Me, role: Role, sites: readonly Pick<Site, "id" | "name">[] | undefined, chosen: string | undefined): string | undefined {
  const places = (sites ?? []).filter((site) => chosen === undefined || site.id === chosen);
  const [first] = places;
  if (first === undefined || places.some((site) => holds(me, role, site.id))) return undefined;
  return missingRole(me, role, first.id, chosen === undefined ? "a site" : first.name);
}

/** Why `me` may not do what only an admin of the whole fleet may, or undefined. */
export function missingFleetAdmin(me: Me): string | undefined {
  return leadsFleet(me) ? undefined : "Requires the role admin of the whole fleet; ask an admin of the fleet.";
}
