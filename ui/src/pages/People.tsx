/** People and their roles. Only an admin of the fleet sees them. */
import { useMutation, useQuery, useQueryClient, useSuspenseQuery } from "@tanstack/react-query";
import { useState } from "react";

import { api, body } from "../api/client";
import { meQuery, peopleQuery, sitesQuery } from "../api/queries";
import type { Role, User } from "../api/types";
import { SelectField, TextField } from "../components/fields";
import { FormDialog } from "../components/FormDialog";
import { Status } from "../components/Status";
import { Age, Empty, Loading, PageHead, ProblemNote } from "../components/ui";
import { count } from "../lib/format";
import { leadsFleet, ROLES } from "../lib/roles";

export function People() {
  const { data: me } = useSuspenseQuery(meQuery);
  const admin = leadsFleet(me);
  const { data: people, error, isPending, refetch } = useQuery({ ...peopleQuery, enabled: admin });
  if (!admin) {
    return (
      <>
        <PageHead title="People" />
        <div className="panel">
          <Empty title="Only admins of the fleet see people and roles">Ask one of them to add someone or to change a role.</Empty>
        </div>
      </>
    );
  }
  return (
    <>
      <PageHead title="People" meta={people && count(people.length, "person", "people")} actions={<AddPerson />} />
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={people ? "The list is out of date" : "The people cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {isPending && <Loading what="the people" />}
      {people && (
        <div className="panel overflow-x-auto" tabIndex={0} role="region" aria-label="List of people, scrollable">
          <table role="table" className="grid-table cards">
            <caption className="sr-only">People</caption>
            <thead>
              <tr role="row">
                <th scope="col">Name</th>
                <th scope="col">E-mail</th>
                <th scope="col">Roles</th>
                <th scope="col">Added</th>
                <th scope="col">
                  <span className="sr-only">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {people.map((person) => (
                <Row key={person.id} person={person} self={person.id === me.id} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function Row({ person, self }: { person: User; self: boolean }) {
  const { data: sites } = useQuery(sitesQuery);
  const queries = useQueryClient();
  const take = useMutation({
    mutationFn: (grant: string) => body(api.DELETE("/v1/users/{id}/grants/{grant_id}", { params: { path: { id: person.id, grant_id: grant } } })),
    onSuccess: () => queries.invalidateQueries({ queryKey: peopleQuery.queryKey }),
  });
  const place = (site: string | null | undefined): string => (site ? (sites?.items.find((item) => item.id === site)?.name ?? site.slice(-8)) : "the whole fleet");
  return (
    <tr role="row" data-row>
      <td role="cell" className="font-medium">
        {person.name}
        {self && <span className="text-faint"> (you)</span>} {person.disabled && <Status tone="off" word="disabled" />}
      </td>
      <td role="cell">{person.email}</td>
      <td role="cell" className="whitespace-normal!">
        {person.grants.length === 0 && <span className="text-faint">none yet</span>}
        <ul className="flex flex-wrap gap-1.5 py-1.5">
          {person.grants.map((grant) => (
            <li key={grant.id} className="border-line bg-raised flex items-center gap-1.5 rounded border px-2">
              {grant.role} of {place(grant.site_id)}
              <button
                type="button"
                className="text-soft hover:text-bad px-0.5"
                aria-label={`Remove the role ${grant.role} of ${place(grant.site_id)} from ${person.name}`}
                aria-busy={take.isPending || undefined}
                onClick={() => take.mutate(grant.id)}
              >
                ×
              </button>
            </li>
          ))}
        </ul>
        {take.error && <ProblemNote error={take.error} what="The role was not removed" />}
      </td>
      <td role="cell">
        <Age at={person.created_at} />
      </td>
      <td role="cell">
        <GrantRole person={person} />
      </td>
    </tr>
  );
}

function AddPerson() {
  const queries = useQueryClient();
  const [email, setEmail] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const wrong = name.trim() === "" || !email.includes("@") ? "Give a name and an e-mail address." : password.length < 12 ? "A password requires at least 12 characters." : undefined;
  return (
    <FormDialog
      label="Add a person"
      look="primary"
      title="Add a person"
      note="They sign in with this password and have no role until you grant one."
      wrong={wrong}
      act={() => body(api.POST("/v1/users", { body: { email: email.trim(), name: name.trim(), password } }))}
      done={() => {
        setEmail("");
        setName("");
        setPassword("");
        void queries.invalidateQueries({ queryKey: peopleQuery.queryKey });
      }}
    >
      <TextField label="Name" value={name} set={setName} />
      <TextField label="E-mail" value={email} set={setEmail} type="email" />
      <TextField label="First password" value={password} set={setPassword} type="password" autoComplete="new-password" />
    </FormDialog>
  );
}

function GrantRole({ person }: { person: User }) {
  const queries = useQueryClient();
  const { data: sites } = useQuery(sitesQuery);
  const [role, setRole] = useState<Role>("operator");
  const [site, setSite] = useState("");
  return (
    <FormDialog
      label="Grant a role"
      title={`Grant ${person.name} a role`}
      note="A viewer reads. An operator also plans, approves and runs jobs. An admin also changes settings, executors and credentials."
      act={() => body(api.POST("/v1/users/{id}/grants", { params: { path: { id: person.id } }, body: { role, site_id: site === "" ? null : site } }))}
      done={() => void queries.invalidateQueries({ queryKey: peopleQuery.queryKey })}
    >
      <SelectField label="Role" value={role} set={setRole} options={ROLES.map((name) => [name, name] as const)} />
      <SelectField label="Where" value={site} set={setSite} options={[["", "The whole fleet"], ...(sites?.items ?? []).map((item) => [item.id, item.name] as const)]} />
    </FormDialog>
  );
}
