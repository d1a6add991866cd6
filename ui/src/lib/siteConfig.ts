/** The settings of a site as typed, checked with the server's rules. */
import type { Site, SiteConfig } from "../api/types";
import { utc } from "./format";

export interface SiteForm {
  /** Seconds. */
  lease: string;
  maxRuns: string;
  secondPerson: boolean;
}

const LEASE_MS = { min: 500, max: 600_000 };
const MAX_RUNS = { min: 1, max: 10_000 };

export function siteForm(config: Required<SiteConfig>): SiteForm {
  return { lease: String(config.lease_ttl_ms / 1000), maxRuns: String(config.max_mutating_runs), secondPerson: config.second_person };
}

/** Field → what it should be; empty when the settings are fine. */
export function siteProblems(form: SiteForm): Partial<Record<keyof SiteForm, string>> {
  const out: Partial<Record<keyof SiteForm, string>> = {};
  if (!isLease(form.lease)) out.lease = "0.5 to 600 seconds";
  if (!whole(form.maxRuns, MAX_RUNS)) out.maxRuns = "1 to 10000 runs";
  return out;
}

/** `lab (by Ada since 2026-11-29 at 14:03 UTC)`: a site whose hardware operations are paused, with who paused them where it is known. */
export function pausedSite(site: Pick<Site, "name" | "paused_by_name" | "paused_at">): string {
  if (!site.paused_by_name || !site.paused_at) return site.name;
  return `${site.name} (by ${site.paused_by_name} since ${utc(site.paused_at)})`;
}

/** What the form says over what it does not show. */
export function siteConfig(form: SiteForm, before: SiteConfig): SiteConfig {
  return { ...before, lease_ttl_ms: Math.round(Number(form.lease) * 1000), max_mutating_runs: Number(form.maxRuns), second_person: form.secondPerson };
}

function isLease(text: string): boolean {
  const ms = Number(text) * 1000;
  return /^\d{1,3}(\.\d{1,3})?$/.test(text.trim()) && ms >= LEASE_MS.min && ms <= LEASE_MS.max;
}

function whole(text: string, { min, max }: { min: number; max: number }): boolean {
  return /^\d{1,6}$/.test(text.trim()) && Number(text) >= min && Number(text) <= max;
}

/** What a site may be called; the control plane says the same (`schema/src/check.rs`). */
export const SITE_NAME = "a site's name has 1 to 80 characters, no space at either end and no character that cannot be seen, and is not rackhand or anonymous";

/** The rule, where a name breaks it. */
export function siteNameProblem(name: string): string | undefined {
  const fits = name !== "" && [...name].length <= 80 && name.trim() === name && !/[\p{Cc}\p{Cf}\u2028\u2029]/u.test(name) && !/^(rackhand|anonymous)$/i.test(name);
  return fits ? undefined : `A${SITE_NAME.slice(1)}.`;
}
