/** Errors of the API as values: an RFC 9457 problem, or the lack of any answer. */
import type { Problem } from "./types";

/** The control plane answered with a problem. */
export class ApiError extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail || problem.title);
    this.name = "ApiError";
    this.problem = problem;
  }
}

/** No answer came: offline, refused or cut. */
export class Unreachable extends Error {
  constructor(cause: unknown) {
    super("The control plane does not answer. Nothing on the hardware is harmed by that.", { cause });
    this.name = "Unreachable";
  }
}

/** Makes a problem of an error body, also when something in between answered instead of Rackhand. */
export function toProblem(status: number, body: unknown): Problem {
  if (typeof body === "object" && body !== null && "code" in body && "title" in body) {
    return body as Problem;
  }
  return {
    type: "",
    title: `HTTP ${status}`,
    status,
    code: "",
    detail: "The answer did not come from Rackhand; perhaps a proxy in between gave it.",
  };
}

export function problemCode(error: unknown): string | undefined {
  return error instanceof ApiError ? error.problem.code : undefined;
}

/** Whether the same request may succeed later without anybody changing anything. */
export function isPassing(error: unknown): boolean {
  return error instanceof Unreachable || (error instanceof ApiError && error.problem.status >= 500);
}
