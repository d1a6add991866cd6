/**
 * What a job is being prepared for: a frozen list of servers, kept for this tab. Reloading the page or
 * changing the fleet meanwhile does not change it.
 */
import type { FirmwarePackage } from "../api/types";

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
}

const PREFIX = "rackhand.draft.";

export function saveDraft(draft: Draft): string {
  const id = crypto.randomUUID();
  sessionStorage.setItem(PREFIX + id, JSON.stringify(draft));
  return id;
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
