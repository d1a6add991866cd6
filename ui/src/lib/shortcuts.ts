/** Keys that are pressed one after the other. All pure. */

/** The second key of a pair must follow within this. */
const PAIR_MS = 1200;

/** Told each key and when it was pressed, it says whether that is the second of a pair that `first` begins. */
export function pairs(first: string): (key: string, at: number) => boolean {
  let begun = -Infinity;
  return (key, at) => {
    const second = at - begun < PAIR_MS;
    begun = key === first ? at : -Infinity;
    return second;
  };
}
