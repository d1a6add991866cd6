/** People, their roles, and how they sign in. Only an admin of the fleet sees everyone; others see themselves. */
import { useQuery, useSuspenseQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";
import { useState } from "react";

import { meQuery, peopleQuery, sitesQuery } from "../api/queries";
import type { Site, User } from "../api/types";
import { ChangePassword } from "../components/ChangePassword";
import { Status } from "../components/Status";
import { Age, Loading, None, PageHead, ProblemNote } from "../components/ui";
import { count } from "../lib/format";
import { leadsFleet, missingFleetAdmin } from "../lib/roles";
import { AddPerson, EndSessions, GrantRole, type MadeLink, NewPasswordLink, RemoveRole, SetDisabled, ShownLink } from "./people/Actions";

export function People() {
  const { site: chosen } = useSearch({ from: "/signed-in/people" });
  const { data: me } = useSuspenseQuery(meQuery);
  const { data: sites } = useQuery(sitesQuery);
  const admin = leadsFleet(me);
  const { data: everyone, error, isPending, refetch } = useQuery({ ...peopleQuery, enabled: admin });
  const [made, setMade] = useState<MadeLink>();
  const blocked = missingFleetAdmin(me);
  const people: Listed[] | undefined = admin ? everyone : [{ ...me, disabled: false }];
  return (
    <>
      <PageHead
        title="People"
        meta={admin ? everyone && count(everyone.length, "person", "people") : "Only admins of the fleet see other people and change roles."}
        actions={<AddPerson blocked={blocked} done={setMade} />}
      />
      {error && (
        <div className="pb-3">
          <ProblemNote error={error} what={people ? "The list is out of date" : "The people cannot be read"} retry={() => void refetch()} />
        </div>
      )}
      {made && <ShownLink key={made.token ?? made.person} made={made} hide={() => setMade(undefined)} />}
      {admin && isPending && <Loading what="the people" />}
      {people && (
        <div className="panel shrink-0 overflow-x-auto" tabIndex={0} role="region" aria-label="List of people, scrollable">
          <table role="table" className="grid-table cards">
            <caption className="sr-only">People</caption>
            <thead>
              <tr role="row">
                <th scope="col">Person</th>
                <th scope="col">Sign-in</th>
                <th scope="col">Roles</th>
                <th scope="col">Added</th>
                <th scope="col">
                  <span className="sr-only">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {people.map((person) => (
                <Row key={person.id} person={person} self={person.id === me.id} sites={sites?.items ?? []} site={chosen} blocked={blocked} show={setMade} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

/** As an admin of the fleet sees everyone, and everyone sees themselves. */
type Listed = Omit<User, "created_at"> & Partial<Pick<User, "created_at">>;

interface RowProps {
  person: Listed;
  self: boolean;
  sites: Site[];
  /** The site that the pages are about. */
  site: string | undefined;
  blocked: string | undefined;
  show: (made: MadeLink | undefined) => void;
}

function Row({ person, self, sites, site, blocked, show }: RowProps) {
  return (
    <tr role="row" data-row>
      <td role="cell" className="py-1.5! whitespace-normal! rows:min-w-52">
        <div className="font-medium">
          {person.name}
          {self && <span className="text-faint"> (you)</span>}
        </div>
        <div className="text-soft wrap-anywhere">{person.email}</div>
      </td>
      <td role="cell">{person.disabled ? <Status tone="off" word="disabled" /> : <Status tone="ok" word="enabled" />}</td>
      <td role="cell" className="whitespace-normal!">
        {person.grants.length === 0 && <span className="text-faint">no role yet</span>}
        <ul className="flex flex-wrap gap-1.5 py-1.5 empty:hidden">
          {person.grants.map((grant) => (
            <li key={grant.id}>
              <RemoveRole person={person} self={self} grant={grant} sites={sites} blocked={blocked} />
            </li>
          ))}
        </ul>
      </td>
      <td role="cell">
        {person.created_at ? (
          <>
            <span className="text-soft rows:hidden">added </span>
            <Age at={person.created_at} />
          </>
        ) : (
          <None />
        )}
      </td>
      <td role="cell" className="whitespace-normal!">
        <div className="flex flex-wrap gap-1.5 py-1.5 rows:w-60">
          <GrantRole person={person} sites={sites} site={site} blocked={blocked} />
          {self ? <ChangePassword look="small" /> : <NewPasswordLink person={person} blocked={blocked} done={show} />}
          <EndSessions person={person} self={self} blocked={self ? undefined : blocked} />
          <SetDisabled person={person} self={self} blocked={blocked} />
        </div>
      </td>
    </tr>
  );
}
