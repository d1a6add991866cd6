/**
 * What a job is being prepared for: a frozen list of servers, kept for this tab. Reloading the page or
 * changing the fleet meanwhile does not change it.
 */
import type { FirmwarePackage } from "../api/types";
import type { PackageForm } from "./packages";

export interface DraftTarget {
  id: string;
  name: string;
  model?: string | null;
  generation?: string | null;
}

export interface Draft {
  siteId: string;
  site: string;
  targets: DraftTarget[];
  /** How the selection was made, in words. */
  origin: string;
  packages?: Record<string, FirmwarePackage>;
  allowDowngrade?: boolean;
  reason?: string;
  /** What has been typed so far: a session that ends takes nothing with it. */
  form?: FirmwareForm;
}

export interface FirmwareForm {
  packages: Record<string, PackageForm>;
  downgrade: boolean;
  parallel: string;
  pauseAfter: string;
  /** Local time, as the browser's own field gives it; empty: at once. */
  startAfter: string;
  reason: string;
}

const PREFIX = "rackhand.draft.";

export function saveDraft(draft: Draft): string {
  const id = crypto.randomUUID();
  sessionStorage.setItem(PREFIX + id, JSON.stringify(draft));
  return id;
}

/** Keeps what has been typed, where {@link loadDraft} finds it again. */
export function keepForm(id: string, form: FirmwareForm): void {
  const draft = loadDraft(id);
  if (draft !== undefined) sessionStorage.setItem(PREFIX + id, JSON.stringify({ ...draft, form }));
}

export function loadDraft(id: string | undefined): Draft | undefined {
  if (id === undefined) return undefined;
  try {
    const text = sessionStorage.getItem(PREFIX + id);
    return text === null ? undefined : (JSON.parse(text) as Draft);
  } catch {
    return undefined;
  }
}

/** Keeps what has been typed into a page for this tab; undefined forgets it. */
export function keepTyped(page: string, typed: unknown): void {
  if (typed === undefined) sessionStorage.removeItem(PREFIX + page);
  else sessionStorage.setItem(PREFIX + page, JSON.stringify(typed));
}

/** What {@link keepTyped} kept. */
export function loadTyped<T>(page: string): T | undefined {
  try {
    const text = sessionStorage.getItem(PREFIX + page);
    return text === null ? undefined : (JSON.parse(text) as T);
  } catch {
    return undefined;
  }
}
