//! SipHash over words that are at hand: what the crate `siphasher` says of their bytes, without
//! putting these together in memory first, and without a loop.

use zeroize::Zeroize;

/// A hash that has begun. `COMPRESS` is how many rounds there are for each word, and `FINISH` how many
/// at the end.
#[derive(Clone, Copy)]
pub(super) struct State {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl Zeroize for State {
    fn zeroize(&mut self) {
        let Self { a, b, c, d } = self;
        for word in [a, b, c, d] {
            word.zeroize();
        }
    }
}

impl State {
    #[inline]
    pub fn new(key: &[u8; 16]) -> Self {
        let [k0, k1] = [0, 8].map(|at| {
            let bytes = key[at..].first_chunk().copied();
            u64::from_le_bytes(bytes.unwrap_or_default())
        });
        Self {
            a: k0 ^ 0x736f_6d65_7073_6575,
            b: k1 ^ 0x646f_7261_6e64_6f6d,
            c: k0 ^ 0x6c79_6765_6e65_7261,
            d: k1 ^ 0x7465_6462_7974_6573,
        }
    }

    /// With these words taken in.
    #[expect(clippy::inline_always, reason = "rounds one after the other are quicker than calls")]
    #[inline(always)]
    pub fn with_all<const COMPRESS: usize, const WORDS: usize>(self, words: [u64; WORDS]) -> Self {
        let mut state = self;
        for word in &words {
            state = state.with::<COMPRESS>(*word);
        }
        state
    }

    /// The hash of what was taken in and of what is left over, in whose highest byte stands how many
    /// bytes there are in all.
    #[expect(clippy::inline_always, reason = "as with `with_all`")]
    #[inline(always)]
    pub fn finish<const COMPRESS: usize, const FINISH: usize>(self, last: u64) -> u64 {
        let mut state = self.with::<COMPRESS>(last);
        state.c ^= 0xff;
        let Self { a, b, c, d } = state.after::<FINISH>();
        a ^ b ^ c ^ d
    }

    #[expect(clippy::inline_always, reason = "as with `with_all`")]
    #[inline(always)]
    fn with<const ROUNDS: usize>(self, word: u64) -> Self {
        let mixed = Self { d: self.d ^ word, ..self }.after::<ROUNDS>();
        Self { a: mixed.a ^ word, ..mixed }
    }

    #[expect(clippy::inline_always, reason = "as with `with_all`")]
    #[inline(always)]
    fn after<const ROUNDS: usize>(self) -> Self {
        let Self { mut a, mut b, mut c, mut d } = self;
        for _ in 0..ROUNDS {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32);
            c = c.wrapping_add(b);
            a = a.wrapping_add(d);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
        }
        Self { a, b, c, d }
    }
}
