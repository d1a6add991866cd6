/** What is done for a person, each in a dialog that says what follows. */
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { api, body } from "../../api/client";
import { meQuery, peopleQuery } from "../../api/queries";
import type { Grant, PasswordLink, Role, Site, User } from "../../api/types";
import { Command } from "../../components/Command";
import { SelectField, TextField } from "../../components/fields";
import { FormDialog } from "../../components/FormDialog";
import { Button, ProblemNote } from "../../components/ui";
import { linkHours, MAY, passwordLink, placeOf, removalNote } from "../../lib/people";
import { ROLES } from "../../lib/roles";

type Person = Pick<User, "id" | "name" | "disabled" | "grants">;

interface ActionProps {
  person: Person;
  /** Why it may not be done. */
  blocked: string | undefined;
}

/** A one-time link as it was made for someone, or why there is none though the account was added. */
export type MadeLink = { person: string; added: boolean } & (({ failure?: never } & PasswordLink) | { failure: unknown; token?: never });

/** Reads people again, and oneself: it may be about oneself. */
function useReread(): () => void {
  const queries = useQueryClient();
  return () => {
    void queries.invalidateQueries({ queryKey: peopleQuery.queryKey });
    void queries.invalidateQueries({ queryKey: meQuery.queryKey });
  };
}

const makeLink = (id: string): Promise<PasswordLink> => body(api.POST("/v1/users/{id}/password-link", { params: { path: { id } } }));

export function AddPerson({ blocked, done }: { blocked: string | undefined; done: (made: MadeLink) => void }) {
  const reread = useReread();
  const [email, setEmail] = useState("");
  const [name, setName] = useState("");
  return (
    <FormDialog
      label="Add a person"
      look="primary"
      blocked={blocked}
      title="Add a person"
      note="You get a one-time link with which they choose their own password. They have no role until you grant one."
      wrong={!email.includes("@") ? "Give an e-mail address." : name.trim() === "" ? "Give a name." : undefined}
      failed="No one was added"
      act={async (): Promise<MadeLink> => {
        const added = await body(api.POST("/v1/users", { body: { email: email.trim(), name: name.trim() } }));
        const about = { person: added.name, added: true };
        return makeLink(added.id).then(
          (link) => ({ ...about, ...link }),
          (failure: unknown) => ({ ...about, failure }),
        );
      }}
      done={(made) => {
        setEmail("");
        setName("");
        reread();
        done(made);
      }}
    >
      <TextField label="E-mail" value={email} set={setEmail} type="email" />
      <TextField label="Name" value={name} set={setName} hint="As others see them" />
    </FormDialog>
  );
}

/** The link, as long as the page stays: it is not shown again. */
export function ShownLink({ made, hide }: { made: MadeLink; hide: () => void }) {
  return (
    <section aria-label="One-time link" className="panel mb-4 flex flex-col gap-2 p-3">
      {made.token === undefined ? (
        <>
          <p>{made.person} was added, without a way to sign in yet: choose “Password link…” in their row.</p>
          <ProblemNote error={made.failure} what="No link was made" />
        </>
      ) : (
        <>
          <p>
            {made.added ? `${made.person} was added. With this link they choose` : `With this link ${made.person} chooses`} a password, once, within {linkHours(made.expires_in)}. Hand it over where only they read it; it is not
            shown again.
          </p>
          <Command label="One-time link" text={passwordLink(made, location.origin)} />
        </>
      )}
      <div>
        <Button onClick={hide}>{made.token === undefined ? "Hide" : "Hide the link"}</Button>
      </div>
    </section>
  );
}

export function NewPasswordLink({ person, blocked, done }: ActionProps & { done: (made: MadeLink) => void }) {
  return (
    <FormDialog
      label="Password link…"
      labelFor={`for ${person.name}`}
      look="small"
      blocked={blocked ?? (person.disabled ? `${person.name} is disabled. Enable them first.` : undefined)}
      title={`Reset the password of ${person.name}`}
      note={`You get a link with which ${person.name} chooses a new password, once. Until it is used the present password stays; then all their sessions end. An earlier link stops working now.`}
      send="Make a link"
      failed="No link was made"
      act={async (): Promise<MadeLink> => ({ person: person.name, added: false, ...(await makeLink(person.id)) })}
      done={done}
    />
  );
}

export function EndSessions({ person, self, blocked }: ActionProps & { self: boolean }) {
  return (
    <FormDialog
      label={self ? "End other sessions…" : "End sessions…"}
      labelFor={self ? undefined : `of ${person.name}`}
      look="small"
      danger
      blocked={blocked}
      title={self ? "End your other sessions" : `End the sessions of ${person.name}`}
      note={
        self
          ? "Every other browser and terminal in which you are signed in is signed out at once; this one stays."
          : `${person.name} is signed out everywhere at once and can sign in again with the same password. If someone else may know it, also make a password link.`
      }
      send="End sessions"
      failed="No session was ended"
      act={() => body(api.DELETE("/v1/users/{id}/sessions", { params: { path: { id: person.id } } }))}
    />
  );
}

export function SetDisabled({ person, self, blocked }: ActionProps & { self: boolean }) {
  const reread = useReread();
  const disable = !person.disabled;
  return (
    <FormDialog
      label={disable ? "Disable…" : "Enable…"}
      labelFor={person.name}
      look="small"
      danger={disable}
      blocked={blocked ?? (self ? "You cannot disable yourself; another admin of the fleet can." : undefined)}
      title={`${disable ? "Disable" : "Enable"} ${person.name}`}
      note={
        disable
          ? `All sessions of ${person.name} end at once, and they cannot sign in until someone enables them. Roles stay. Jobs that are planned or running continue; enrolment tokens and password links that they made stop working.`
          : `${person.name} can sign in again with the former password and has the same roles as before.`
      }
      send={disable ? "Disable" : "Enable"}
      failed="Nothing was changed"
      act={() => body(api.PATCH("/v1/users/{id}", { params: { path: { id: person.id } }, body: { disabled: disable } }))}
      done={reread}
    />
  );
}

export function GrantRole({ person, sites, site, blocked }: ActionProps & { sites: Site[]; site: string | undefined }) {
  const reread = useReread();
  const [role, setRole] = useState<Role>("viewer");
  const [picked, setPicked] = useState<string>();
  const where = picked ?? sites.find((item) => item.id === site)?.id ?? "";
  return (
    <FormDialog
      label="Grant a role…"
      labelFor={`to ${person.name}`}
      look="small"
      blocked={blocked}
      title={`Grant ${person.name} a role`}
      note="It holds from the next request on. Each role includes the ones before it."
      send="Grant"
      wrong={where === "" ? "Choose where the role holds." : undefined}
      failed="No role was granted"
      act={() => body(api.POST("/v1/users/{id}/grants", { params: { path: { id: person.id } }, body: { role, site_id: where === FLEET ? null : where } }))}
      done={() => {
        setRole("viewer");
        setPicked(undefined);
        reread();
      }}
    >
      <SelectField label="Role" value={role} set={setRole} options={ROLES.map((name) => [name, `${name}: ${MAY[name]}`] as const)} />
      <SelectField
        label="Where"
        value={where}
        set={setPicked}
        options={[["", "Choose…"], ...sites.map((item) => [item.id, `Site ${item.name}`] as const), [FLEET, "The whole fleet: every site, also later ones"]]}
      />
    </FormDialog>
  );
}

const FLEET = "fleet";

export function RemoveRole({ person, self, grant, sites, blocked }: ActionProps & { self: boolean; grant: Grant; sites: Site[] }) {
  const reread = useReread();
  const place = placeOf(grant.site_id, sites);
  return (
    <span className="border-line bg-raised inline-flex items-center gap-1.5 rounded border px-2">
      {grant.role} of {place}
      <FormDialog
        label="Remove"
        labelFor={`the role ${grant.role} of ${place} from ${person.name}`}
        sign="×"
        look="sign"
        danger
        blocked={blocked}
        title={self ? `Remove your own role ${grant.role} of ${place}` : `Remove the role ${grant.role} of ${place} from ${person.name}`}
        note={removalNote(person.name, grant, place, person.grants.length === 1, self)}
        send="Remove the role"
        failed="The role was not removed"
        act={() => body(api.DELETE("/v1/users/{id}/grants/{grant_id}", { params: { path: { id: person.id, grant_id: grant.id } } }))}
        done={reread}
      />
    </span>
  );
}
