//! The fuzz targets in a bounded run: every seed of the corpus, and the same mutations of it each time.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "this is a test, and so are the targets it includes"
)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// Mutations of each target, and the time after which a slow machine stops.
const MUTATIONS: u32 = 12_000;
const MOST_TIME: Duration = Duration::from_millis(200);
/// Where a mutation stops growing, bytes.
const MOST_BYTES: usize = 2_048;

/// Small, fast and the same everywhere (xorshift64).
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 12] = [0x00, 0x01, 0x02, 0x0f, 0x7f, 0x80, 0xc0, 0xc1, 0xca, 0xc5, 0xfe, 0xff];
        if self.next().is_multiple_of(2) {
            TELLING[self.below(TELLING.len())]
        } else {
            self.next().to_le_bytes()[3]
        }
    }
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no seeds", target.name);
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut data = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(7) {
            0 => data.truncate(at),
            1 => data.insert(at.min(data.len()), random.byte()),
            2 if !data.is_empty() => drop(data.remove(at)),
            3 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            4 => {
                let other = &seeds[random.below(seeds.len())];
                data.extend_from_slice(&other[random.below(other.len())..]);
            }
            5 => data.extend((0..random.below(24)).map(|_| random.byte())),
            _ if !data.is_empty() => data[at] = random.byte(),
            _ => {}
        }
        data.truncate(MOST_BYTES);
    }
    data
}

fn check(target: &Target, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_err() {
        panic!("{} fails on {}", target.name, hex::encode(data));
    }
}

#[test]
fn targets_stand_a_few_thousand_mutations() {
    for target in TARGETS {
        let seeds = seeds(target);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let begun = Instant::now();
        check(target, &[]);
        seeds.iter().for_each(|seed| check(target, seed));
        let mut done = 0;
        while done < MUTATIONS && begun.elapsed() < MOST_TIME {
            check(target, &mutate(&seeds, &mut random));
            done += 1;
        }
        println!("{}: {} seeds, {done} mutations, {:?}", target.name, seeds.len(), begun.elapsed());
        assert!(done > 100, "{} is slow", target.name);
    }
}
