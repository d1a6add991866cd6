/** Starts an inventory job: it only reads, so it needs no plan and begins at once. */
import { useNavigate } from "@tanstack/react-router";

import { PACE } from "../lib/job";
import { usePlannedJob } from "./JobDialog";
import { Button, ProblemNote } from "./ui";

interface Props {
  siteId: string;
  targets: string[];
  blocked: string | undefined;
  label?: string;
}

export function InventoryButton({ siteId, targets, blocked, label = "Read inventory" }: Props) {
  const navigate = useNavigate();
  const start = usePlannedJob((job) => void navigate({ to: "/jobs/$id", params: { id: job.id } }));
  const read = (): void =>
    // What cannot be read on one server says nothing about the others.
    start.mutate({ site_id: siteId, kind: "inventory", params: {}, targets, policy: { ...PACE, pause_after_failures: 0 }, reason: "Read on demand" });
  return (
    <>
      <Button blocked={blocked} busy={start.isPending} onClick={read}>
        {start.isPending ? "Starting…" : label}
      </Button>
      {start.error && (
        <div className="order-last basis-full">
          <ProblemNote error={start.error} what="The inventory was not started" />
        </div>
      )}
    </>
  );
}
