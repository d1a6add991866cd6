/**
 * The key of a site as people compare it: the fingerprint, what an executor printed, and what this browser remembers.
 * `rackhand sites show` and `rackhand-executor site-key` print the same fingerprint.
 */
const STORE = "rackhand.siteKeys";

/** SHA-256 of the public key, the first 16 bytes in groups of four hex digits; undefined without a secure context. */
export async function fingerprint(base64: string): Promise<string | undefined> {
  if (typeof crypto === "undefined" || crypto.subtle === undefined) return undefined;
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
  } catch {
    return undefined;
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = [...digest.slice(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.match(/.{4}/g)?.join(" ");
}

export type Comparison = "same" | "other" | "no key";

/** Compares with what an executor printed: the key, its fingerprint, or the whole output, where each must be the same. */
export function compareKey(offered: string, offeredPrint: string | undefined, typed: string): Comparison {
  const keys = typed.match(/(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=/g) ?? [];
  const prints = typed.match(/(?<![0-9a-f] ?)(?:[0-9a-f]{4} ?){7}[0-9a-f]{4}(?! ?[0-9a-f])/gi) ?? [];
  const plain = (text: string): string => text.replace(/\s/g, "").toLowerCase();
  const answers = [...keys.map((key) => key === offered), ...(offeredPrint === undefined ? [] : prints.map((print) => plain(print) === plain(offeredPrint)))];
  if (answers.length === 0) return "no key";
  return answers.every(Boolean) ? "same" : "other";
}

export interface Remembered {
  key: string;
  /** When someone said that it is the one that an executor printed. */
  at: string;
}

/** The key of a site that was compared in this browser. */
export function remembered(site: string): Remembered | undefined {
  return all()[site];
}

export function remember(site: string, key: string, at: string): void {
  localStorage.setItem(STORE, JSON.stringify({ ...all(), [site]: { key, at } }));
}

function all(): Record<string, Remembered> {
  try {
    return JSON.parse(localStorage.getItem(STORE) ?? "{}") as Record<string, Remembered>;
  } catch {
    return {};
  }
}
