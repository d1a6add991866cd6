/** Whole-page states: the app cannot start, a page broke, there is no such page. */
import { useQueryClient } from "@tanstack/react-query";
import { type ErrorComponentProps, Link, useRouter } from "@tanstack/react-router";

import { ApiError, isPassing } from "../api/problem";
import { useEffect } from "react";
import { Empty, ProblemNote, useTitle } from "./ui";

/** The session could not be read. Tries again by itself when that may help. */
export function CannotStart({ error }: ErrorComponentProps) {
  const router = useRouter();
  const queries = useQueryClient();
  const retry = (): void => {
    queries.removeQueries({ queryKey: ["me"] });
    void router.invalidate();
  };
  useEffect(() => {
    if (!isPassing(error)) return;
    const timer = setInterval(retry, 5000);
    return () => clearInterval(timer);
  });
  return (
    <main className="mx-auto max-w-xl px-6 pt-[18vh]">
      <h1 className="mb-3 text-xl font-medium">{error instanceof ApiError ? error.problem.title : "Rackhand cannot be reached"}</h1>
      <ProblemNote error={error} retry={retry} headed={error instanceof ApiError} />
      {isPassing(error) && (
        <p className="text-soft mt-3">Trying again every 5 s. Work that is already in a BMC continues, and the executors follow it meanwhile.</p>
      )}
    </main>
  );
}

export function PageError({ error }: ErrorComponentProps) {
  const router = useRouter();
  return (
    <div className="mx-auto max-w-xl pt-16">
      <h1 className="mb-3 text-xl font-medium">{isPassing(error) ? "This page cannot be loaded now" : "This page cannot be shown"}</h1>
      <ProblemNote error={error} retry={() => void router.invalidate()} />
    </div>
  );
}

export function NotFound() {
  useTitle("Not found");
  return (
    <main className="pt-[12vh]">
      <h1 className="sr-only">Not found</h1>
      <Empty title="There is no such page">
        <Link to="/servers" className="link">
          Go to the servers
        </Link>
      </Empty>
    </main>
  );
}
