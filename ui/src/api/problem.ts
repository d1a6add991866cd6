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

/** What the detail says beyond the title, which stands above it. */
export function beyondTitle({ title, detail }: Problem): string {
  const rest = detail.startsWith(title) ? detail.slice(title.length) : undefined;
  return rest === undefined || !/^(\.|$)/.test(rest) ? detail : rest.slice(1).trim();
}

/** As the forms call what the API calls otherwise. */
const LABELS: Record<string, string> = {
  allow_downgrade: "Allow downgrades",
  bmc_url: "BMC address",
  credential_id: "Credential",
  email: "E-mail",
  file_name: "File name",
  ipmi: "IPMI address",
  lease_ttl_ms: "Lease",
  max_mutating_runs: "Changing runs at once",
  max_parallel: "Max. in parallel",
  new: "New password",
  pause_after_failures: "Pause after failures",
  present: "Present password",
  sha256: "SHA-256",
  site_id: "Site",
  software_id: "Software id",
  spki_sha256: "TLS key",
  start_after: "Not before",
  targets: "Servers",
  token: "Link",
  url: "URL",
};

/** Each field that was refused, once, by the label that people see: "New password: has fewer than 12 characters". */
export function fieldTexts(problem: Problem): string[] {
  const texts = (problem.fields ?? []).map(({ field, detail }) => {
    const last = field.replace(/\[[^\]]*\]$/, "").split(".").at(-1) ?? field;
    const named = last.charAt(0).toUpperCase() + last.slice(1).replaceAll("_", " ");
    return `${LABELS[last] ?? named}: ${detail}`;
  });
  return [...new Set(texts)];
}

function isFields(fields: unknown): fields is Problem["fields"] {
  return Array.isArray(fields) && fields.every((field) => typeof field?.field === "string" && typeof field.detail === "string");
}

/** Makes a problem of an error body, also when something in between answered instead of Rackhand: that may have a `code`
 * and a `title`, too, and anything in the rest. */
export function toProblem(status: number, body: unknown): Problem {
  const { code, title, detail, type, trace_id, needs_role, fields = [] } = (body ?? {}) as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === "string" ? value : undefined);
  if (typeof code === "string" && typeof title === "string" && typeof detail === "string" && isFields(fields)) {
    return { code, title, detail, status, fields, type: text(type) ?? "", trace_id: text(trace_id), needs_role: text(needs_role) };
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
