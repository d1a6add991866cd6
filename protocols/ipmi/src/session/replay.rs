//! Which session sequence numbers have been seen (section 6.12.13).
//!
//! The specification lets a packet be 15 ahead of the newest one at most. Here any step ahead is taken: a number
//! counts only after its packet's integrity code was verified, and a long loss must not end a session.

/// How far behind the newest number a late packet may be.
const BEHIND: u32 = u64::BITS;

/// A sliding window; bit `n` stands for the newest number less `n`.
#[derive(Clone, Copy, Debug)]
pub struct ReplayWindow {
    newest: u32,
    seen: u64,
}

impl Default for ReplayWindow {
    /// Nothing seen; 0 is not a number within a session.
    fn default() -> Self {
        Self { newest: 0, seen: 1 }
    }
}

impl ReplayWindow {
    /// True the first time for each number that is not too old. Numbers wrap around, leaving out 0.
    pub fn accept(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        let ahead = number.wrapping_sub(self.newest);
        if ahead != 0 && ahead <= u32::MAX / 2 {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = number;
            return true;
        }
        let behind = self.newest.wrapping_sub(number);
        if behind >= BEHIND {
            return false;
        }
        let bit = 1_u64 << behind;
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_counts_once() {
        let mut window = ReplayWindow::default();
        for number in [1, 3, 2, 10, 4, 5] {
            assert!(window.accept(number), "{number}");
            assert!(!window.accept(number), "{number} again");
        }
        assert!(!window.accept(0));
    }

    #[test]
    fn old_numbers_are_refused_and_far_ones_taken() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(1000));
        assert!(window.accept(1000 - 63));
        assert!(!window.accept(1000 - 64));
        assert!(window.accept(1_000_000));
        assert!(!window.accept(1000));
    }

    #[test]
    fn numbers_wrap_around() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(0x7fff_ffff));
        assert!(window.accept(u32::MAX - 1));
        assert!(window.accept(1));
        assert!(window.accept(u32::MAX));
        assert!(!window.accept(u32::MAX - 1));
    }
}
