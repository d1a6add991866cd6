/** What a new password requires; the control plane checks the rest (schema/src/check.rs). */
export const SHORTEST_PASSWORD = 12;

/** Why a new password, typed twice, cannot be sent, or undefined. */
export function newPasswordProblem(next: string, again: string): string | undefined {
  if ([...next].length < SHORTEST_PASSWORD) return `A password requires at least ${SHORTEST_PASSWORD} characters.`;
  return next === again ? undefined : "Type the same new password twice.";
}
