import { Fragment } from "react";

import type { Executor } from "../api/types";
import { words } from "../lib/format";
import { ExecutorStatus } from "./Status";
import { Age } from "./ui";

interface Props {
  executors: Executor[];
  caption: string;
  /** Names a site; given where executors of several sites are listed. */
  siteName?: (id: string) => string;
}

/** Which executors are enrolled, which are online, what they hold. */
export function ExecutorTable({ executors, caption, siteName }: Props) {
  return (
    <div className="@container overflow-x-auto" tabIndex={0} role="region" aria-label={`${caption}, scrollable`}>
      <table className={`grid-table ${siteName ? "min-w-[720px]" : "min-w-[600px]"}`}>
        <caption className="sr-only">{caption}</caption>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Status</th>
            {siteName && <th scope="col">Site</th>}
            <th scope="col">Runs held</th>
            <th scope="col">Version</th>
            <th scope="col">Last seen</th>
            <th scope="col">Enrolled</th>
          </tr>
        </thead>
        <tbody>
          {executors.map((executor) => (
            <Fragment key={executor.id}>
              <tr data-row className="[&>td]:border-b-0!">
                <td className="font-medium">{executor.name}</td>
                <td>
                  <ExecutorStatus state={status(executor)} />
                </td>
                {siteName && <td>{siteName(executor.site_id)}</td>}
                <td className="mono">{executor.runs_held}</td>
                <td className="mono">{executor.version}</td>
                <td>
                  <Age at={executor.seen_at} />
                </td>
                <td>
                  <Age at={executor.enrolled_at} />
                </td>
              </tr>
              <tr>
                <td colSpan={siteName ? 7 : 6} className="text-soft h-auto! pb-2! whitespace-normal!">
                  <dl className="sticky left-3 grid max-w-[calc(100cqw-1.5rem)] grid-cols-[auto_1fr] gap-x-3 gap-y-0.5">
                    <dt className="text-faint">Job kinds</dt>
                    <dd>{executor.kinds.map(words).join(", ")}</dd>
                    <dt className="text-faint">Fingerprint</dt>
                    <dd className="mono select-all">{executor.fingerprint}</dd>
                  </dl>
                </td>
              </tr>
            </Fragment>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function status(executor: Executor): "online" | "offline" | "joining" | "revoked" {
  if (executor.state !== "active") return executor.state;
  return executor.online ? "online" : "offline";
}
