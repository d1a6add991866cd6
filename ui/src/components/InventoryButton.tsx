/** Starts an inventory job: it only reads, so it needs no plan and begins at once. */
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useRef } from "react";

import { api, body } from "../api/client";
import { Button, ProblemNote } from "./ui";

interface Props {
  siteId: string;
  targets: string[];
  blocked: string | undefined;
  label?: string;
}

export function InventoryButton({ siteId, targets, blocked, label = "Read inventory" }: Props) {
  const navigate = useNavigate();
  // Kept until the job is there, so that a repeated click after a lost answer makes no second one.
  const key = useRef({ targets: "", key: "" });
  const start = useMutation({
    mutationFn: () => {
      const list = targets.join();
      if (key.current.targets !== list) key.current = { targets: list, key: crypto.randomUUID() };
      return body(
        api.POST("/v1/jobs", {
          params: { header: { "Idempotency-Key": key.current.key } },
          body: { site_id: siteId, kind: "inventory", params: {}, targets, policy: { max_parallel: 8, pause_after_failures: 0, start_after: null }, reason: "Read on demand" },
        }),
      );
    },
    onSuccess: (job) => {
      key.current.targets = "";
      void navigate({ to: "/jobs/$id", params: { id: job.id } });
    },
  });
  return (
    <>
      <Button blocked={blocked} busy={start.isPending} onClick={() => start.mutate()}>
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
