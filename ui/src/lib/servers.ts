/** Servers to register, as typed or as `rackhand-executor pins` printed them, checked with the server's rules. */

export const SERVER_FIELDS = ["name", "address", "pin", "ipmi", "tags"] as const;
export type ServerField = (typeof SERVER_FIELDS)[number];
export interface ServerForm extends Record<ServerField, string> {
  /** Name of a credential; empty: the one for all. */
  credential: string;
}

export const NEW_SERVER: ServerForm = { name: "", address: "", pin: "", ipmi: "", tags: "", credential: "" };
/** The most that are registered at once. */
export const MAX_SERVERS = 1000;

export type ServerProblems = Partial<Record<ServerField, string>>;

const HOST = String.raw`(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[1-9]\d{0,4})?`;
const HTTPS = new RegExp(String.raw`^https://${HOST}(?:/redfish/v1/Systems/[^/?#\s]+)?$`);
const IPMI = new RegExp(`^ipmi://${HOST}$`);
const AUTHORITY = new RegExp(`^${HOST}$`);

/** Field → what it should be; empty when the server can be sent. The control plane has the last word. */
export function serverProblems(form: ServerForm): ServerProblems {
  const out: ServerProblems = {};
  const { name, address, pin, ipmi } = trimmed(form);
  if (name === "" || [...name].length > 120) out.name = "1 to 120 characters";
  if (!HTTPS.test(address) && !IPMI.test(address)) out.address = "https://host[:port], or ipmi://host[:port] for a BMC without Redfish";
  if (address.startsWith("ipmi://")) {
    if (pin !== "") out.pin = "IPMI has no key; leave it empty";
    if (ipmi !== "") out.ipmi = "this BMC is reached by IPMI already; leave it empty";
  } else {
    // Whether it requires a key, its address says.
    if ((address.startsWith("https://") || pin !== "") && !/^[0-9a-f]{64}$/.test(pin)) out.pin = "64 lower-case hex digits, as rackhand-executor pins prints them";
    if (ipmi !== "" && !AUTHORITY.test(ipmi)) out.ipmi = "host[:port]";
  }
  const tags = tagList(form.tags);
  if (tags.length > 64 || tags.some((tag) => [...tag].length > 64)) out.tags = "at most 64 tags of at most 64 characters";
  return out;
}

/** Names and addresses that two of the rows have, by row. */
export function twice(forms: readonly ServerForm[]): ServerProblems[] {
  const count = (field: "name" | "address", value: string): number => forms.filter((form) => form[field].trim() === value).length;
  return forms.map((form) => {
    const out: ServerProblems = {};
    const { name, address } = trimmed(form);
    if (name !== "" && count("name", name) > 1) out.name = "another server here has this name";
    if (address !== "" && count("address", address) > 1) out.address = "another server here has this address";
    return out;
  });
}

/** An item of `POST /v1/servers/bulk`. It does not name what is empty: what a registered server has there stays. */
export function toItem(form: ServerForm, credentialId: string | undefined) {
  const { name, address, pin, ipmi } = trimmed(form);
  const tags = tagList(form.tags);
  return {
    name,
    bmc_url: address,
    ...(ipmi !== "" && { ipmi }),
    ...(pin !== "" && { spki_sha256: pin }),
    ...(credentialId !== undefined && { credential_id: credentialId }),
    ...(tags.length > 0 && { tags }),
  };
}

/** What replacing would do to a server that has this name already; `registered`: the addresses by name. */
export function taken(form: ServerForm, registered: ReadonlyMap<string, string>, site: string): ServerProblems {
  const { name, address } = trimmed(form);
  const there = registered.get(name);
  if (there === undefined) return {};
  if (there === address) return { name: `${site} has a server of this name at this address already` };
  return { name: `${site} has a server of this name already`, address: `${name} is registered at ${there}, not at ${address}` };
}

const COLUMN: Record<string, ServerField> = { name: "name", bmc_url: "address", spki_sha256: "pin", ipmi: "ipmi", tags: "tags" };

/** Puts a refusal beside its fields where it names them; what names none is `rest`. */
export function refusal(detail: string): { fields: ServerProblems; rest: string } {
  const fields: ServerProblems = {};
  const rest: string[] = [];
  for (const part of detail.split("; ")) {
    const [, column = "", text = ""] = /^([a-z_0-9]+)(?:\[\d+\])?: (.+)$/.exec(part) ?? [];
    const field = COLUMN[column];
    if (field === undefined) rest.push(part);
    else fields[field] = text;
  }
  return { fields, rest: rest.join("; ") };
}

/** What `parseServers` reads. */
export const SERVERS_EXAMPLE = `[
  {"name": "web-1", "bmc_url": "https://10.0.0.17", "spki_sha256": "${"0".repeat(64)}", "tags": ["rack:7"]},
  {"name": "web-2", "bmc_url": "ipmi://10.0.0.18"}
]`;

/** Reads a servers file: a JSON list of objects. Throws a plain reason that counts from 1. */
export function parseServers(text: string): ServerForm[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!Array.isArray(value) || value.length === 0) throw new Error("Expected a JSON list of servers, as rackhand-executor pins prints it.");
  if (value.length > MAX_SERVERS) throw new Error(`A list has at most ${MAX_SERVERS} servers; this one has ${value.length}.`);
  return value.map((entry: unknown, index) => fromEntry(entry, index + 1));
}

function fromEntry(entry: unknown, place: number): ServerForm {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) throw new Error(`Entry ${place} is not an object.`);
  const form = { ...NEW_SERVER };
  for (const [key, value] of Object.entries(entry)) {
    const wrong = (): Error => new Error(`Entry ${place}${"name" in entry ? ` (${String(entry.name)})` : ""}: ${key} is not valid.`);
    if (value === null) continue;
    if (key === "tags") {
      if (!Array.isArray(value) || value.some((tag) => typeof tag !== "string" || /[\s,]/.test(tag))) throw wrong();
      form.tags = value.join(" ");
      continue;
    }
    const field = key === "credential" ? key : COLUMN[key];
    if (field === undefined || typeof value !== "string") throw wrong();
    form[field] = value;
  }
  return form;
}

function tagList(text: string): string[] {
  return text.split(/[\s,]+/).filter((tag) => tag !== "");
}

function trimmed(form: ServerForm): Record<ServerField, string> {
  return { name: form.name.trim(), address: form.address.trim(), pin: form.pin.trim(), ipmi: form.ipmi.trim(), tags: form.tags.trim() };
}
