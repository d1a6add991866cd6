/** Firmware packages as typed or pasted, checked with the server's rules so that mistakes show at once. */
import type { FirmwarePackage } from "../api/types";
import { generation } from "./format";

/** Which of the `given` packages a server gets: by model, then by its BMC's generation, then `any`. */
export function packageFor(server: { model?: string | null; generation?: string | null }, given: readonly string[]): string | undefined {
  return [server.model, server.generation, "any"].find((key) => typeof key === "string" && given.includes(key)) ?? undefined;
}

/** "any" and generations as people call them; models as they are. */
export function packageKey(key: string): string {
  return key === "any" ? "Any other server" : generation(key);
}

export const FIELDS = ["name", "file_name", "url", "sha256", "size", "software_id", "version"] as const;
export type PackageField = (typeof FIELDS)[number];
export type PackageForm = Record<PackageField, string>;

export const EMPTY: PackageForm = { name: "", file_name: "", url: "", sha256: "", size: "", software_id: "", version: "" };

const RULES: Record<PackageField, [RegExp, string]> = {
  name: [/^.{1,200}$/, "1 to 200 characters"],
  file_name: [/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/, "letters, digits, dots, hyphens and underscores"],
  url: [/^https?:\/\/[^ @]+$/, "starts with http:// or https://, without a user name"],
  sha256: [/^[0-9a-f]{64}$/, "64 lower-case hex digits"],
  size: [/^[1-9]\d{0,9}$/, "whole bytes, at most 8 GiB"],
  software_id: [/^.{1,64}$/, "1 to 64 characters"],
  version: [/^.{1,64}$/, "1 to 64 characters"],
};

/** Field → what it should be; empty when the package is fine. */
export function packageProblems(form: PackageForm): Partial<Record<PackageField, string>> {
  const out: Partial<Record<PackageField, string>> = {};
  for (const field of FIELDS) {
    const [pattern, rule] = RULES[field];
    if (!pattern.test(form[field].trim())) out[field] = rule;
  }
  if (out.size === undefined && Number(form.size) > 8_589_934_592) out.size = RULES.size[1];
  return out;
}

export function isBlank(form: PackageForm): boolean {
  return FIELDS.every((field) => form[field].trim() === "");
}

export function toPackage(form: PackageForm): FirmwarePackage {
  const text = (field: PackageField): string => form[field].trim();
  return {
    name: text("name"),
    file_name: text("file_name"),
    url: text("url"),
    sha256: text("sha256"),
    size: Number(text("size")),
    software_id: text("software_id"),
    version: text("version"),
  };
}

export function toForm(value: Partial<Record<PackageField, unknown>>): PackageForm {
  const form = { ...EMPTY };
  for (const field of FIELDS) {
    const given = value[field];
    if (typeof given === "string" || typeof given === "number") form[field] = String(given);
  }
  return form;
}

/** What `parsePackages` reads. */
export const PACKAGES_EXAMPLE = JSON.stringify(
  {
    "PowerEdge R750": {
      name: "BIOS 1.19.0",
      file_name: "BIOS_R750_1.19.0.EXE",
      url: "https://packages.example/BIOS_R750_1.19.0.EXE",
      sha256: "0".repeat(64),
      size: 31457280,
      software_id: "159",
      version: "1.19.0",
    },
  },
  null,
  2,
);

/** Reads `{model or generation: package}`, also when it stands under `packages` or `params`. Throws a plain reason. */
export function parsePackages(text: string): Record<string, PackageForm> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  for (const wrapper of ["params", "packages"]) {
    if (isObject(value) && isObject(value[wrapper])) value = value[wrapper];
  }
  if (!isObject(value) || Object.keys(value).length === 0) throw new Error("Expected an object: model or BMC generation → package.");
  const out: Record<string, PackageForm> = {};
  for (const [generation, item] of Object.entries(value)) {
    if (!isObject(item)) throw new Error(`“${generation}” is not a package. Expected model or BMC generation → package, such as {"idrac9": {…}}.`);
    out[generation] = toForm(item);
  }
  return out;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
