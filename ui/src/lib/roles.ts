/** Which role a person holds where, and the words for what is missing. */
import type { Me, Role } from "../api/types";

const ORDER: Role[] = ["viewer", "operator", "admin"];

/** Whether `me` holds at least `role` in `site` (by a grant there or for the whole fleet). */
export function holds(me: Me, role: Role, site: string): boolean {
  return me.grants.some(
    (grant) =>
      ORDER.indexOf(grant.role) >= ORDER.indexOf(role) && (grant.site_id === null || grant.site_id === undefined || grant.site_id === site),
  );
}

/** Why `me` may not, or undefined. */
export function missingRole(me: Me, role: Role, site: string, siteName: string): string | undefined {
  return holds(me, role, site) ? undefined : `Needs the role ${role} in ${siteName}; ask an admin of the site.`;
}
