/** Commands for a shell, so that they can be copied as they are. */

/** One argument, quoted where a POSIX shell would not take it as it is. */
export function quote(text: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export interface CredentialCommand {
  name: string;
  site: string;
  user: string;
  /** The site's key as an executor printed it; empty: a word in its place. */
  siteKey: string;
}

/** Seals a credential for the BMCs of a servers file. The password is requested on the terminal. */
export function credentialCommand({ name, site, user, siteKey }: CredentialCommand): string {
  const word = (text: string, stand: string): string => (text === "" ? stand : quote(text));
  return [
    `rackhand credentials set ${word(name, "NAME")} --site ${word(site, "SITE")} --user ${word(user, "USER")}`,
    `  --targets-file servers.json --site-key ${word(siteKey, "KEY")}`,
  ].join(" \\\n");
}
