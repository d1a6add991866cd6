import { useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useState, useSyncExternalStore } from "react";

import { type LiveState, LiveStream } from "./stream";

const Live = createContext<LiveStream | undefined>(undefined);

/** Keeps the event stream open while people are signed in. */
export function LiveProvider({ children }: { children: ReactNode }) {
  const queries = useQueryClient();
  const [stream] = useState(() => new LiveStream(queries));
  useEffect(() => stream.start(), [stream]);
  return <Live value={stream}>{children}</Live>;
}

export function useLive(): LiveStream {
  const stream = useContext(Live);
  if (stream === undefined) throw new Error("useLive outside LiveProvider");
  return stream;
}

export function useLiveState(): LiveState {
  const stream = useLive();
  return useSyncExternalStore(stream.subscribe, () => stream.state);
}
