/** The server's clock as seen from here, so that ages are right on a machine whose clock is not. */

let skewMs = 0;

/** Learns from a `Date` header; it has whole seconds, so differences below two are noise. */
export function noteServerDate(header: string | null): void {
  const at = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(at)) return;
  const skew = at - Date.now();
  skewMs = Math.abs(skew) < 2000 ? 0 : skew;
}

export function serverNow(): number {
  return Date.now() + skewMs;
}
