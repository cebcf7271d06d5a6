//! Identifies a state by 64 bits.

use std::hash::{Hash, Hasher};

/// A hash of a value. Of ten million states, two have the same hash with a probability of three in a million.
pub(super) fn digest(value: &impl Hash) -> u64 {
    let mut hasher = Fold(0);
    value.hash(&mut hasher);
    hasher.finish()
}

/// A fast hash of integers: multiplies, and folds the product.
struct Fold(u64);

impl Fold {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the halves of the product"
    )]
    fn add(&mut self, word: u64) {
        let product =
            u128::from(self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64 ^ word.rotate_left(32);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte) + 1);
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.add(u64::from(word) + 1);
    }

    fn write_u32(&mut self, word: u32) {
        self.add(u64::from(word) + 1);
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word.wrapping_add(1));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_usize(word.cast_unsigned());
    }
}
