/** Times, sizes and counts as people read them. All pure. */

/** A reading older than this is marked as stale. */
export const STALE_MS = 15 * 60_000;

/** "under 1 s", "4 s", "3 min", "2 h 5 min", "12 d": at most two units. */
export function duration(ms: number): string {
  if (ms < 1000) return "under 1 s";
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) {
    const rest = seconds % 60;
    return minutes < 10 && rest > 0 ? `${minutes} min ${rest} s` : `${minutes} min`;
  }
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 > 0 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return days < 10 && hours % 24 > 0 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** "12 s ago"; "now" within two seconds. */
export function age(at: string, now: number): string {
  const ms = now - Date.parse(at);
  return ms < 2000 ? "now" : `${duration(ms)} ago`;
}

/** Local wall time, "14:03:09", with the date when it is not today's. */
export function clock(at: string, now: number): string {
  const date = new Date(at);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const sameDay = new Date(now).toDateString() === date.toDateString();
  return sameDay ? time : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** "2026-11-30 at 06:54 UTC": as the control plane writes it into its own texts, beside which it stands. */
export function utc(at: string): string {
  const text = new Date(at).toISOString();
  return `${text.slice(0, 10)} at ${text.slice(11, 16)} UTC`;
}

/** With milliseconds, for logs. */
export function logClock(at: string): string {
  const date = new Date(at);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** Binary multiples: "14.2 MiB". */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let rest = value;
  let unit = 0;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? rest : rest.toFixed(rest < 10 ? 1 : 0)} ${units[unit]}`;
}

/** "1 server", "12 servers"; thousands with a thin space. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${number(n)} ${n === 1 ? one : many}`;
}

export function number(n: number): string {
  return String(n).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** "device_job" → "device job". */
export function words(machine: string): string {
  return machine.replaceAll("_", " ");
}

/** "idrac9" → "iDRAC 9"; other vendors' names stay. */
export function generation(name: string): string {
  const match = /^idrac(\d+)$/.exec(name);
  return match ? `iDRAC ${match[1]}` : name;
}

/** Orders "iDRAC 9" before "iDRAC 10". */
export function byNumber(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

/** "bmc-01: the host restarts" → "the host restarts", where the name stands beside it anyway. */
export function withoutName(text: string, name: string): string {
  return text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text;
}

/** A detail beside its percentage, which need not be said twice. */
export function withoutPercent(text: string, percent: number | null | undefined): string {
  const end = `, ${percent} %`;
  return text.endsWith(end) ? text.slice(0, -end.length) : text;
}

export function shortDigest(hex: string): string {
  return hex.slice(0, 12);
}

/** "firmware_update" → "Firmware update". */
export function jobKind(kind: string): string {
  const text = words(kind);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The name of the item with that id; while the list is not here, the end of the id. */
export function nameOf(items: readonly { id: string; name: string }[] | undefined, id: string): string {
  return items?.find((item) => item.id === id)?.name ?? id.slice(-8);
}
