/** What a new password requires; the control plane checks the rest (schema/src/check.rs). */
export const SHORTEST_PASSWORD = 12;

/** The token of a one-time link, which stands after its `#`; undefined where it is absent or cut. */
export function linkToken(hash: string): string | undefined {
  return /^#?([A-Za-z0-9_-]{43})$/.exec(hash)?.[1];
}

/** Why a new password, typed twice, cannot be sent, or undefined. */
export function newPasswordProblem(next: string, again: string): string | undefined {
  if ([...next].length < SHORTEST_PASSWORD) return `A password requires at least ${SHORTEST_PASSWORD} characters.`;
  return next === again ? undefined : "Type the same new password twice.";
}
