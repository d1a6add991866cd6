/** Says when the screen may be out of date, and which sites cannot act. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type ReactNode, useSyncExternalStore } from "react";

import { sitesQuery } from "../api/queries";
import { ApiError } from "../api/problem";
import { clock, duration } from "../lib/format";
import { pausedSite } from "../lib/siteConfig";
import { useLive, useLiveState } from "../live/LiveProvider";
import { Shape, Status } from "./Status";
import type { StatusTone } from "./tones";
import { useNow } from "./ui";

/** A break shorter than this is bridged silently. */
const GRACE_MS = 4000;

export function LiveBadge() {
  const live = useLiveState();
  const look: Record<typeof live.kind, [StatusTone, string]> = {
    live: ["ok", "live"],
    connecting: ["busy", "connecting"],
    lost: ["warn", "not live"],
    asleep: ["off", "paused while hidden"],
  };
  const [tone, word] = look[live.kind];
  return (
    <span role="status" aria-label={`Updates: ${word}`} className="px-1 text-xs">
      <Status tone={tone} word={word} />
    </span>
  );
}

function subscribeOnline(listener: () => void): () => void {
  window.addEventListener("online", listener);
  window.addEventListener("offline", listener);
  return () => {
    window.removeEventListener("online", listener);
    window.removeEventListener("offline", listener);
  };
}

export function Banners() {
  const live = useLiveState();
  const stream = useLive();
  const online = useSyncExternalStore(subscribeOnline, () => navigator.onLine);
  const { data } = useQuery(sitesQuery);
  useNow();
  const now = Date.now();
  const lost = live.kind === "lost" && now - live.since > GRACE_MS;
  const deaf = (data?.items ?? []).filter((site) => site.servers > 0 && site.executors_online === 0);
  const paused = (data?.items ?? []).filter((site) => site.config.hardware_paused);
  // They stay in view where the screen has room beside them.
  return (
    <div className="z-20 shrink-0 md:sticky md:top-0">
      {lost && (
        <Banner tone="warn">
          <strong className="font-semibold">
            {online ? "The control plane has not answered" : "This browser has been offline"} since {clock(new Date(live.since).toISOString(), now)}.
          </strong>{" "}
          What you see may be out of date by {duration(now - live.since)}.
          {live.error instanceof ApiError && ` ${live.error.problem.title} (${live.error.problem.code}).`} Work in flight goes on; nothing new starts.{" "}
          {live.retryAt !== undefined && live.retryAt > now && <>Next try in {duration(live.retryAt - now)}. </>}
          <button type="button" className="link" onClick={() => stream.retryNow()}>
            Try now
          </button>
        </Banner>
      )}
      {!lost && deaf.length > 0 && (
        <Banner tone="warn">
          <strong className="font-semibold">No executor is online in {deaf.map((site) => site.name).join(", ")}.</strong> Runs wait there, and what is shown of servers and runs may be stale. Look at{" "}
          <Link to="/executors" className="link">
            the executors
          </Link>
          , and start one with <code className="mono">rackhand-executor run --data DIR</code>.
        </Banner>
      )}
      {paused.length > 0 && (
        <Banner tone="wait">
          <strong className="font-semibold">Hardware operations are paused in {paused.map((site) => pausedSite(site)).join(", ")}.</strong> No new change starts; work already in a BMC is followed until it finishes. An admin resumes them{" "}
          <Link to="/sites" search={paused.length === 1 ? { site: paused[0]?.id } : {}} className="link">
            on the page Sites
          </Link>
          .
        </Banner>
      )}
    </div>
  );
}

function Banner({ tone, children }: { tone: StatusTone; children: ReactNode }) {
  return (
    <div role="status" className="border-warn/40 bg-warn-wash flex items-start gap-2.5 border-b px-6 py-2">
      <span className="pt-0.5">
        <Shape tone={tone} />
      </span>
      <p>{children}</p>
    </div>
  );
}
