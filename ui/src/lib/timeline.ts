/**
 * Places spans of many lanes on one horizontal axis, with idle gaps cut short: a stretch in which no lane
 * does anything takes no more room than `gapMs` would.
 */
export interface Span {
  start: number;
  /** Absent: still going on. */
  end?: number;
}

export interface Axis {
  /** 0–1 for a moment. */
  at(time: number): number;
  /** Busy milliseconds plus the shortened gaps. */
  length: number;
  start: number;
  /** Where a gap was cut: position and how long it was. */
  cuts: { at: number; ms: number }[];
}

export function axis(spans: Span[], now: number, gapMs = 2000): Axis {
  const closed = spans
    .map(({ start, end }) => ({ start, end: Math.max(start, end ?? now) }))
    .sort((a, b) => a.start - b.start);
  const first = closed[0];
  if (first === undefined) return { at: () => 0, length: 0, start: now, cuts: [] };

  // Busy stretches, each with its offset on the axis.
  const busy: { start: number; end: number; offset: number }[] = [];
  let offset = 0;
  const found: { offset: number; ms: number }[] = [];
  for (const span of closed) {
    const last = busy.at(-1);
    if (last !== undefined && span.start - last.end <= gapMs) {
      last.end = Math.max(last.end, span.end);
      continue;
    }
    if (last !== undefined) {
      offset = last.offset + (last.end - last.start) + gapMs;
      found.push({ offset: offset - gapMs / 2, ms: span.start - last.end });
    }
    busy.push({ ...span, offset });
  }
  const tail = busy.at(-1) ?? { ...first, offset: 0 };
  const length = Math.max(1, tail.offset + (tail.end - tail.start));

  return {
    length,
    start: first.start,
    cuts: found.map((cut) => ({ at: cut.offset / length, ms: cut.ms })),
    at(time) {
      let place = 0;
      for (const stretch of busy) {
        if (time < stretch.start) break;
        place = stretch.offset + Math.min(time, stretch.end) - stretch.start;
      }
      return Math.min(1, Math.max(0, place / length));
    },
  };
}
